"""The worker process of one loaded engine: `python -m llmlab.engines.host FOLDER`, started by host_link.py.

It reads a Load from stdin, connects to the two sockets in FOLDER, loads the engine and runs its loop. Stdin stays open
as a life line: when the notebook's kernel is gone, however it went, this process ends within two seconds.
This file must not know notebooks. It imports little: a start costs the user as long as its imports.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

import zmq

from llmlab.engines import messages as wire
from llmlab.engines.base import ENGINES, Engine, EngineConfig
from llmlab.engines.loop import EngineLoop
from llmlab.errors import EngineError, SelfTestFailed, unknown

COMMANDS, EVENTS = "commands", "events"  # names of the sockets in the folder
PARENT_CHECK_S = 0.5
FLUSH_MS = 2000
# Of two processes the kernel should survive: what runs out of memory is the engine.
OOM_SCORE = "500"


def create_engine(config: EngineConfig, parts: dict[str, Any]) -> Engine:
    """The engine of this config. A name with a colon, "module:class", is an engine that ENGINES does not list.

    Raises: EngineError for an unknown name, when its package is missing, or when the model cannot be loaded.
    """
    target = ENGINES.get(config.engine, config.engine)
    module_name, _, class_name = target.partition(":")
    if not class_name:
        raise EngineError(unknown("engine", config.engine, ENGINES))
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "llmlab":
            raise
        cure = f" Install it: pip install 'llmlab-kit[{config.engine}]'" if config.engine in ENGINES else ""
        raise EngineError(
            f"The {config.engine} engine needs the module {error.name!r}, which is not here.{cure}"
        ) from error
    kind = getattr(module, class_name)
    for part in parts:
        if part not in signature(kind).parameters:
            why = getattr(kind, "refuses", {}).get(part)
            raise EngineError(
                f"{why + ' ' if why else ''}The {config.engine} engine takes no {part} of yours; `-e torch` takes a "
                "policy, a sampler, a block_pool and an attention, `-e llamacpp` a policy and a sampler."
            )
    engine: Engine = kind(config, **parts)
    return engine


def ready(engine: Engine, load_s: float) -> wire.Ready:
    """What the notebook learns of a loaded engine.

    Raises: SelfTestFailed when the engine finds its own arithmetic broken; it is closed then.
    """
    broken = getattr(engine, "self_test", lambda: None)()
    if broken:
        engine.close()
        raise SelfTestFailed(f"The {engine.name} engine fails its self-test: {broken}.")
    return wire.Ready(engine.header, engine.epoch_s, load_s, tuple(getattr(engine, "notes", ())))


def main(folder: Path) -> int:
    """Serve one engine until Close. The exit code: 0, or 1 when it could not be loaded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C inside a step would leave the engine half-way
    faulthandler.enable()
    _be_the_first_to_go()
    load = _read_load()
    threading.Thread(target=_die_with_the_kernel, args=(folder,), name="life line", daemon=True).start()
    sys.path.extend(p for p in load.import_path if p not in sys.path)
    context = zmq.Context()
    commands, events = _connect(context, zmq.PULL, folder / COMMANDS), _connect(context, zmq.PUSH, folder / EVENTS)
    try:
        return _serve(load, commands, events)
    finally:
        events.close(linger=FLUSH_MS)
        context.term()  # wakes the thread that reads commands, which closes its socket


def _serve(load: wire.Load, commands: zmq.Socket[bytes], events: zmq.Socket[bytes]) -> int:
    started = time.monotonic()
    try:
        engine = create_engine(load.config, unpickled(load.parts))
        answer = wire.EVENT + wire.encode(ready(engine, time.monotonic() - started))
    except Exception as error:
        traceback.print_exc()
        commands.close()
        events.send(wire.EVENT + wire.encode(wire.LoadFailed(type(error).__name__, str(error))))
        return 1
    loop = EngineLoop(engine, events.send)
    events.send(answer)
    threading.Thread(target=_read_commands, args=(commands, loop), name="commands", daemon=True).start()
    loop.run()
    engine.close()
    return 0


def unpickled(parts: bytes) -> dict[str, Any]:
    """The parts of an engine that were written in the notebook: its policy, its sampler."""
    if not parts:
        return {}
    import pickle

    loaded: dict[str, Any] = pickle.loads(parts)
    return loaded


def _connect(context: zmq.Context[zmq.Socket[bytes]], kind: int, path: Path) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.set_hwm(0)  # a kernel that is busy for minutes must not block the engine of another cell
    socket.connect(f"ipc://{path}")
    return socket


def _read_commands(commands: zmq.Socket[bytes], loop: EngineLoop) -> None:
    """A thread of its own, so that a Close can break off the step that runs."""
    with contextlib.suppress(zmq.ContextTerminated):
        while True:
            loop.put(wire.decode_command(commands.recv()))
    commands.close()


def _read_load() -> wire.Load:
    size = int.from_bytes(_read_exactly(8), "little")
    return wire.decode_load(_read_exactly(size))


def _read_exactly(size: int) -> bytes:
    content = b""
    while len(content) < size:
        more = os.read(0, size - len(content))
        if not more:
            os._exit(1)
        content += more
    return content


def _die_with_the_kernel(folder: Path) -> NoReturn:
    """End this process, also in the middle of a forward pass, when the kernel is gone.

    Its end closes stdin at once, unless a fork of the kernel still holds the other side: hence the second sign.
    """
    parent = os.getppid()
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], PARENT_CHECK_S)
        if readable and not os.read(0, 1):
            break
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _be_the_first_to_go() -> None:
    with contextlib.suppress(OSError):  # not Linux, or a container that forbids it
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
