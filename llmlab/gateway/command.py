"""`llmlab gateway CONFIG`: until Ctrl-C; with --check, what it would do.

This file must not know HTTP.
"""

from __future__ import annotations

import argparse
import os
import sys

from llmlab.gateway.checking import check
from llmlab.gateway.reading import read_config
from llmlab.gateway.server import gateway
from llmlab.language import tr
from llmlab.serve.listening import raise_open_files
from llmlab.serve.stopping import ended_by_signals, say_stopping


def run_gateway(arguments: argparse.Namespace) -> None:
    """Until Ctrl-C or SIGTERM. Raises: LlmlabError when it cannot be served as the file says."""
    if arguments.check:
        found = check(read_config(arguments.config), os.environ)
        print(found)
        sys.exit(not found.ok)
    with ended_by_signals():
        raise_open_files()
        door = gateway(
            arguments.config, host=arguments.host, port=arguments.port, tls_cert=arguments.tls_cert,
            tls_key=arguments.tls_key,
        )  # fmt: skip
        try:
            print(door.card, tr("Ctrl-C ends it."), sep="\n", flush=True)
            door.wait()
        except KeyboardInterrupt:
            say_stopping()
        finally:
            door.stop()
