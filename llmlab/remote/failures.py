"""What a server did wrong, in the words that every kind of server has in common. `said` is without keys.

This file must not know any kind of server.
"""

from __future__ import annotations

from llmlab.errors import EngineDied, EngineError, RequestError
from llmlab.language import tr
from llmlab.remote.keys import Key

MAX_SENTENCE = 500


def broken_off(url: str, key: Key, num_pieces: int, why: str | None) -> EngineDied:
    """After `num_pieces`; `why`: what the client library says, None when the stream just ended."""
    text = tr(
        "The server at {url} broke the answer off after {count} tokens ({why}). What had come is in `.results` of this "
        "error. Ask again when the server is there.",
        url=url,
        count=num_pieces,
        why=tr("the stream ended before the answer did") if why is None else why,
    )
    return EngineDied(key.hide(text))


def no_api(url: str, why: str) -> EngineError:
    return EngineError(
        tr(
            "{url} has no list of models at /v1/models ({why}): it does not speak OpenAI's API. Is it the right "
            "address? For Ollama's own API: `--kind ollama`.",
            url=url,
            why=why,
        )
    )


def lacks(url: str, model: str | None, names: list[str]) -> str:
    """That the server has no such model, and which it has; `model` None: it has none at all."""
    if model is None:
        return tr("{url} has no model yet.", url=url)
    known = ", ".join(names) or tr("none")
    return tr("{url} has no model {model!r}. It has: {known}.", url=url, model=model, known=known)


def no_key(url: str, line: str, *, had_one: bool) -> EngineError:
    """`line`: what to type next."""
    return EngineError(
        tr(
            "The server at {url} refuses the key. Put the right one into an environment variable and name it: `{line}`."
            if had_one
            else "The server at {url} wants a key. Put it into an environment variable and name it: `{line}`.",
            url=url,
            line=line,
        )
    )


def untrusted(url: str, said: str) -> EngineError:
    return EngineError(
        tr(
            "The certificate of {url} is not trusted here ({said}). Get the file of it, or of who signed it, and name "
            "it before the notebook starts: SSL_CERT_FILE=cert.pem.",
            url=url,
            said=said,
        )
    )


def hung_up(url: str) -> EngineDied:
    """What a server does that waits for TLS."""
    return EngineDied(
        tr(
            "The server at {url} hung up without an answer. If it speaks https: {https}.",
            url=url,
            https=url.replace("http", "https", 1),
        )
    )


def late(url: str, timeout_s: float) -> EngineDied:
    return EngineDied(tr("The server at {url} did not answer within {seconds:g} s.", url=url, seconds=timeout_s))


def refused(url: str, said: str) -> RequestError:
    return RequestError(tr("The server at {url} refuses this: {said}", url=url, said=said))


def failed(url: str, said: str) -> EngineError:
    return EngineError(tr("The server at {url} failed: {said}", url=url, said=said))


def one_line(told: object) -> str:
    """What a server or a library says, cut to one line."""
    return str(told).split("\n")[0][:MAX_SENTENCE]
