"""llama-server as xllamacpp brings it: `python llama_server.py MODEL.gguf` prints its address, and ends with stdin."""

from __future__ import annotations

import sys


def main() -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_parallel, params.n_ctx, params.warmup = 4, 2048, False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
