"""`llmlab class MODEL`: open a class in a shell, until Ctrl-C; and what a lecturer does with one that runs.

    llmlab class MODEL -e vllm --students students.txt --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
    llmlab class --new-token ada       ada has lost hers
    llmlab class --who URL             who is there

This file must not know engines or routes.
"""

from __future__ import annotations

import argparse
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from llmlab.classroom.names import names_of
from llmlab.classroom.register import FOLDER, Register
from llmlab.errors import EngineError
from llmlab.language import tr

WAIT_S = 10.0
# X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
OTHER_NAME = (62, 64)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What a class has beyond the flags of `llmlab serve`."""
    for flag, kind, text in (
        ("--students", str, "how many, or a file with a name on each line; who is known keeps his token"),
        ("--folder", str, f"where its names and tokens are ({FOLDER})"),
        ("--in-flight", int, "answers of one student that may run or wait at once (8)"),
        ("--tokens-per-minute", int, "of one student: prompts and answers (no limit)"),
        ("--tokens-per-hour", int, "of one student: prompts and answers (no limit)"),
        ("--at-once", int, "answers on the engine; the others wait, who has had least goes first (--seqs)"),
        ("--lecturers", str, "users of the JupyterHub who see all: ann,bob"),
        ("--new-token", str, "make another token for this student, and end: the class may run meanwhile"),
        ("--add", str, "let one more student in, and end: the class may run meanwhile"),
        ("--remove", str, "let this student in no more, and end"),
        ("--who", str, "show who is in the class at this URL, and end"),
    ):
        parser.add_argument(flag, type=kind, help=text, metavar=flag.strip("-").upper())
    parser.add_argument("--share-prefixes", action="store_true", help="one prefix cache for all (docs/classroom.md)")
    parser.add_argument("--hub", action="store_true", help="as a service of JupyterHub: take the tokens of its users")
    parser.set_defaults(folder=FOLDER, in_flight=8)


def run(arguments: argparse.Namespace) -> None:
    """Raises: LlmlabError when it cannot be done."""
    if arguments.who:
        print(who(arguments.who, arguments.folder, arguments.tls_cert))
    elif arguments.new_token or arguments.add or arguments.remove:
        print(_change(arguments))
    elif arguments.model is None:
        raise EngineError(
            tr("Which model? `llmlab class smollm2-135m --students 30`; `llmlab class --help` says more.")
        )
    else:
        _open(arguments)


def who(url: str, folder: str, tls_cert: str | None = None) -> object:
    """The table of a class that runs. `tls_cert`: the certificate that it has, where nobody else vouches for it.

    Raises: EngineError when there is no such class, or the token in the folder is not its lecturer's.
    """
    import msgspec

    from llmlab.classroom.app import Present
    from llmlab.classroom.room import students_card

    token = _register(folder).lecturer_token
    url = url.rstrip("/").removesuffix("/v1")
    if urlsplit(url).scheme not in ("http", "https"):
        raise EngineError(tr("{url!r} is no URL of a class. For example: https://127.0.0.1:8443", url=url))
    asked = urllib.request.Request(f"{url}/class/students", headers={"Authorization": f"Bearer {token}"})
    try:
        trusted = ssl.create_default_context()
        if tls_cert is not None:
            trusted.load_verify_locations(tls_cert)
            trusted.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # that one is enough, whoever has signed it
    except OSError as error:  # ssl.SSLError is one
        raise EngineError(
            tr("{file} is no certificate that can be read ({error}): --tls-cert FILE.", file=tls_cert, error=error)
        ) from None
    try:
        with urllib.request.urlopen(asked, timeout=WAIT_S, context=trusted) as response:
            return students_card(msgspec.json.decode(response.read(), type=Present))
    except urllib.error.HTTPError as error:
        raise EngineError(
            tr(
                "{url} does not tell who is there (HTTP {status}). Is {folder} the folder of that class? --folder DIR.",
                url=url, status=error.code, folder=folder,
            )
        ) from None  # fmt: skip
    except (OSError, ValueError, HTTPException) as error:
        raise _no_class(url, getattr(error, "reason", error)) from None


def _no_class(url: str, why: object) -> EngineError:
    """`why`: what the connection ended with."""
    if isinstance(why, ssl.SSLCertVerificationError):
        text = (
            tr("The certificate of {url} is for another name ({error}). Ask for it by the name in the certificate.",
               url=url, error=why.verify_message)
            if why.verify_code in OTHER_NAME
            else tr("The certificate of {url} is not trusted here. If it is yours, name it: --tls-cert cert.pem.",
                    url=url)
        )  # fmt: skip
        return EngineError(text)
    return EngineError(
        tr("No class at {url} ({error}). Its card says the URL.", url=url, error=str(why).partition("\n")[0])
    )


def _register(folder: str) -> Register:
    """That of a class which has been open before. Raises: EngineError where there is none."""
    file = Path(folder).absolute() / "register.json"
    try:
        is_there = file.exists()
    except OSError as error:
        raise EngineError(
            tr("{file} cannot be read ({error}). Do it as who runs the class, or with sudo.", file=file,
               error=error.strerror)
        ) from None  # fmt: skip
    if not is_there:
        raise EngineError(
            tr(
                "No class in {folder}. Begin one: `llmlab class smollm2-135m --students 30`; or name its folder: "
                "--folder DIR.",
                folder=file.parent,
            )
        )
    return Register(folder)


def _change(arguments: argparse.Namespace) -> str:
    register = _register(arguments.folder)
    if arguments.remove:
        register.remove(arguments.remove)
        return tr("{name} is out. A class that runs knows it.", name=arguments.remove)
    if arguments.add:
        if not register.add(names_of([arguments.add])):
            return tr("{name} was in already, and keeps the token. For another: --new-token {name}.",
                      name=arguments.add)  # fmt: skip
        return tr("{name} is in. The token is in {file}.", name=arguments.add, file=register.folder / "tokens.csv")
    token = register.new_token(arguments.new_token)
    return tr("{name} has a new token, the old one is worth nothing: {token}", name=arguments.new_token, token=token)


def _open(arguments: argparse.Namespace) -> None:
    from llmlab.classroom.hub import place_of_service
    from llmlab.classroom.room import MAX_OPEN, Classroom, classroom
    from llmlab.engines.handle import EngineHandle
    from llmlab.engines.limits import check_limits
    from llmlab.serve.command import serve_until_stopped

    if arguments.hub:
        arguments.host, arguments.port = place_of_service()
    # before the model is loaded, which may take minutes
    students = names_of(() if arguments.students is None else arguments.students)
    check_limits(
        in_flight=arguments.in_flight, tokens_per_minute=arguments.tokens_per_minute,
        tokens_per_hour=arguments.tokens_per_hour, at_once=arguments.at_once, max_open=arguments.max_open,
    )  # fmt: skip
    Register(arguments.folder)

    def start(handle: EngineHandle) -> Classroom:
        return classroom(
            handle, students=students, folder=arguments.folder, in_flight=arguments.in_flight,
            tokens_per_minute=arguments.tokens_per_minute, tokens_per_hour=arguments.tokens_per_hour,
            at_once=arguments.at_once, share_prefixes=arguments.share_prefixes, hub=arguments.hub,
            lecturers=(arguments.lecturers or "").split(",") if arguments.lecturers else (), host=arguments.host,
            port=arguments.port, tls_cert=arguments.tls_cert, tls_key=arguments.tls_key,
            max_open=MAX_OPEN if arguments.max_open is None else arguments.max_open,
        )  # fmt: skip

    serve_until_stopped(arguments, start, lambda room: room.card)
