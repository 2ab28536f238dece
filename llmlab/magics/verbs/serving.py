"""%llm serve and connect: an engine of this notebook for others, and one of others for this notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from IPython.core.error import UsageError

import llmlab
from llmlab.cards import Card, seconds_text
from llmlab.engines import access
from llmlab.language import tr
from llmlab.magics.line import Line, Named
from llmlab.magics.verbs.targets import current, loaded
from llmlab.remote import TracedHandle
from llmlab.remote import connect as connect_to

if TYPE_CHECKING:
    from llmlab.engines.handle import EngineHandle
    from llmlab.remote import RemoteHandle
    from llmlab.serve import Server

# handle -> what the line that serves it asked for
_asked: WeakKeyDictionary[EngineHandle, dict[str, Any]] = WeakKeyDictionary()


def serve(line: Line) -> object:
    """The server is the value. Running the cell again shows the one that runs, with the same token."""
    from llmlab.serve import serve as serve_engine  # its packages are an extra
    from llmlab.serve import servers

    args = line.args
    is_word = args.name == "stop" and "stop" not in llmlab.handles()
    if args.stop or is_word:
        return _stop(line, None if is_word else args.name)
    handle, code = (
        (loaded(args.name), f"llmlab.handles()[{args.name!r}]") if args.name else (current(), "llmlab.current()")
    )
    wanted = {
        "port": args.port, "host": args.host, "tls_cert": args.tls_cert, "tls_key": args.tls_key,
        "max_open": args.max_open,
    }  # fmt: skip
    running = [server for server in servers() if server.handle is handle and server.running]
    if running and _asked.get(handle) == {**wanted, "token_env": args.token_env} and not args.show_code:
        return line.show(running[0].card_of(args.token_env), running[0])
    server: Server = line.call(
        "llmlab.serve", serve_engine, Named(code, handle), token=_token(args.token_env), **wanted
    )
    _asked[handle] = {**wanted, "token_env": args.token_env}
    return line.show(server.card_of(args.token_env), server)


def connect(line: Line) -> object:
    """The handle is the value. Running the cell again replaces its own connection."""
    args = line.args
    wanted = {
        "name": getattr(args, "as"), "kind": args.kind, "model": args.model, "api_key_env": args.api_key_env,
        "timeout": args.timeout, "seed": args.seed, "ctx": args.ctx, "keep_alive": args.keep_alive,
        "pull": args.pull or None, "trace": args.trace, "trace_token_env": args.trace_token_env,
    }  # fmt: skip
    cell, asked = line.lab.cells.next(), ("connect", args.url, repr(wanted))
    asked_before, handles_of = line.lab.loads.get(cell, (None, ()))
    before = [handle_of() for handle_of in handles_of] if asked_before == asked and not args.show_code else []
    for handle in before:
        if handle is not None:
            handle.unload()
    far = line.call("llmlab.connect", connect_to, args.url, **wanted)
    line.lab.loads[cell] = (asked, (ref(far),))
    return line.show(_connected_card(far), far)


def _connected_card(far: RemoteHandle) -> Card:
    header = far.header
    engine = " ".join(filter(None, [header.engine, header.engine_version]))
    rows = (
        (tr("model"), " ".join(filter(None, [header.model, header.quant]))),
        (tr("engine"), tr("{engine} at {url}", engine=engine, url=far.url)),
        (tr("room"), tr("{count} tokens a sequence", count=header.max_model_len) if header.max_model_len else None),
        (tr("connected in"), seconds_text(far.load_s)),
        *_trace_rows(far),
    )
    notes = [
        tr(
            "Its steps are seen: `%llm kv` and `%llm timeline` show them live, requests of other clients in grey."
            if header.capabilities.steps
            else "It runs elsewhere: its steps and its KV cache are not seen from here."
        )
    ]
    if not header.capabilities.token_ids:
        notes.append(tr("The server tells no token ids: answers are compared by their text."))
    return Card(tr("{name} is connected", name=far.name), (), rows, tuple(notes))


def _trace_rows(far: RemoteHandle) -> list[tuple[str, str]]:
    """Whose clock its times are, and how well it is known; nothing of a server that is not traced."""
    if not isinstance(far, TracedHandle):
        return []
    error = tr("the server's clock, known to {seconds}", seconds=seconds_text(far.clock.error_s))
    return [(tr("trace"), error)]


def _token(variable: str | None) -> Named | None:
    """Raises: UsageError when there is no such environment variable."""
    if variable is None:
        return None
    if not (token := access.of_environment(variable)):
        raise UsageError(
            tr(
                "The environment has no variable {name!r}. Leave --token-env out, and a token is made.",
                name=access.named(variable),
            )
        )
    return Named(f"__import__('os').environ[{variable!r}]", token)


def _stop(line: Line, name: str | None) -> object:
    """End the server of that engine, or all."""
    from llmlab.serve import servers

    if line.args.show_code:
        print("import llmlab.serve\nfor server in llmlab.serve.servers():\n    server.stop()")
        return None
    here = [server for server in servers() if name in (None, server.handle.name)]
    for server in here:
        server.stop()
    rows = tuple((server.handle.name, server.url) for server in here)
    return line.show(Card("", (tr("stopped"), tr("was at")), rows) if here else Card(tr("Nothing was served")))
