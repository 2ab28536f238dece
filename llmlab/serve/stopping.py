"""How a command that serves ends: by Ctrl-C, SIGTERM, or with its terminal (SIGHUP), which is heard once.

This file must not know what is served.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from llmlab.language import tr

ENDS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]  # not on Windows


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside, each of them raises KeyboardInterrupt, and what that breaks off here is no error.

    Only the first one does: who presses again, and again, does not break off the end of what is served.
    """
    # a job in the background of a script is started so that it hears no Ctrl-C, and nohup's no SIGHUP
    before = {number: how for number in ENDS if (how := signal.getsignal(number)) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        say_stopping()
    finally:
        for number, how in before.items():
            if signal.getsignal(number) == _interrupt:  # else this process ends
                signal.signal(number, how)


def say_stopping() -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(tr("Stopping."), flush=True)


def _interrupt(*_: object) -> NoReturn:
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
