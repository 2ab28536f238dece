"""`llmlab gateway CONFIG`: until Ctrl-C; with --check, what it would do.

This file must not know HTTP.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from llmlab.gateway.checking import check
from llmlab.gateway.reading import read_config
from llmlab.gateway.server import gateway
from llmlab.language import tr
from llmlab.serve.listening import raise_open_files


def run_gateway(arguments: argparse.Namespace) -> None:
    """Until Ctrl-C or SIGTERM. Raises: LlmlabError when it cannot be served as the file says."""
    if arguments.check:
        found = check(read_config(arguments.config), os.environ)
        print(found)
        sys.exit(not found.ok)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    raise_open_files()
    door = gateway(
        arguments.config, host=arguments.host, port=arguments.port, tls_cert=arguments.tls_cert,
        tls_key=arguments.tls_key,
    )  # fmt: skip
    print(door.card, tr("Ctrl-C ends it."), sep="\n", flush=True)
    try:
        door.wait()
    except KeyboardInterrupt:
        print(tr("Stopping."), flush=True)
    finally:
        door.stop()
