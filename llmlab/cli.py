"""The `llmlab` command: open JupyterLab on the quickstart, run the quickstart without a browser, check this machine,
serve a model, for a class too, or several through a gateway, build and grade labs.

This file must not know engines or models: each command calls one function and shows what it returns.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from llmlab.classroom import command as class_command
from llmlab.errors import LlmlabError
from llmlab.labs import command as labs_command
from llmlab.language import language, tr_notebook

QUICKSTART = Path("notebooks") / "00_quickstart.ipynb"
SERVE_PORT, GATEWAY_PORT = 8000, 8080
PACKAGE = Path(__file__).resolve().parent


def find_quickstart(folder: Path) -> Path:
    """The quickstart to work on from `folder`: the checkout's own inside a checkout, else a copy in `folder`.

    In another language (LLMLAB_LANG) it is a copy anyway. A copy that is already there is kept: it may hold the user's
    work.

    Raises: LlmlabError when this installation has no notebooks.
    """
    checkout = PACKAGE.parent / QUICKSTART
    in_language = language()
    if checkout.exists() and not in_language and folder.resolve().is_relative_to(PACKAGE.parent):
        return checkout
    copy = folder / (QUICKSTART.with_suffix(f".{in_language}.ipynb") if in_language else QUICKSTART).name
    if not copy.exists():
        # a wheel carries the notebooks inside the package
        shipped = next((path for path in (checkout, PACKAGE / QUICKSTART) if path.exists()), None)
        if shipped is None:
            raise LlmlabError(f"This installation has no {QUICKSTART}. Clone the repository and type `make lab` there.")
        copy.write_text(tr_notebook(shipped.read_text(encoding="utf-8")), encoding="utf-8")
    return copy


def lab_command(notebook: Path, root: Path, jupyter_arguments: Sequence[str] = ()) -> list[str]:
    """The command that opens JupyterLab in `root` on `notebook`; without a browser here, JupyterLab prints the URL."""
    command = [sys.executable, "-m", "jupyterlab", "--log-level=WARN", f"--ServerApp.root_dir={root}"]
    # JupyterLab prints its default URL: this way the printed one leads to the notebook as well.
    command.append(f"--LabApp.default_url=/lab/tree/{notebook.relative_to(root).as_posix()}")
    if not has_browser():
        command.append("--no-browser")
    if os.geteuid() == 0:
        command.append("--allow-root")
    return [*command, *jupyter_arguments]


def has_browser() -> bool:
    """Whether a window can open here. A text browser does not count: it would take the terminal and show nothing."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def lab(jupyter_arguments: Sequence[str] = ()) -> NoReturn:
    """Become JupyterLab, open on the quickstart; options this command does not know go to JupyterLab."""
    _need("jupyterlab")
    notebook = find_quickstart(Path.cwd()).resolve()
    root = PACKAGE.parent if notebook.is_relative_to(PACKAGE.parent) else notebook.parent
    # exec, not a child process: Ctrl-C and the exit status are JupyterLab's alone.
    os.execv(sys.executable, lab_command(notebook, root, jupyter_arguments))


def demo(folder: Path) -> Path:
    """Run the quickstart from top to bottom without a browser; returns the page, `folder`/build/quickstart.html.

    The notebook itself stays as it is. When a cell fails, no page is written.

    Raises: LlmlabError with the failed cell and its traceback.
    """
    _need("nbclient")
    _need("nbconvert")
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from nbconvert import HTMLExporter

    source = find_quickstart(folder)
    notebook = nbformat.read(source, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": str(source.parent)}},
        # without this the kernel warns that it talks TCP on this machine: true of every notebook, and no news here
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise LlmlabError(f"{source.name} stopped at a cell:\n{error}") from error
    html, _ = HTMLExporter().from_notebook_node(notebook)
    page = folder / "build" / "quickstart.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text(html, encoding="utf-8")
    return page


def _need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise LlmlabError(
            f"{module} is not installed. Type `pip install 'llmlab-kit[lab]'` (in a checkout: `make lab`)."
        )


def _serve_arguments(parser: argparse.ArgumentParser, *, is_class: bool = False) -> None:
    parser.add_argument(
        "model", metavar="MODEL", nargs="?" if is_class else None,
        help="an embedded model, a folder, a .gguf file, a Hub repo",
    )  # fmt: skip
    for flags, kind, text in (
        (("-e", "--engine"), str, "the engine; auto = the first that runs here"),
        (("-q", "--quant"), str, "how the weights are stored: F16, Q8_0, Q4_1, ..."),
        (("--dtype",), str, "the type the engine computes in"),
        (("--as",), str, "the name that clients use it by"),
        (("--ctx",), int, "the longest sequence, prompt and answer, in tokens"),
        (("--seqs",), int, "how many requests may run at once"),
        (("--kv-tokens",), int, "room of the KV cache, in tokens"),
        (("--host",), str, "which addresses reach it (127.0.0.1: this machine only)"),
        (("--port",), int, f"where it listens ({SERVE_PORT}); 0 = any free port"),
        (("--token-env",), str, "the environment variable that holds the token; without it one is made"),
        (("--tls-cert",), str, "the certificate, for https"),
        (("--tls-key",), str, "the key of the certificate"),
        (("--max-open",), int, "answers that may run or wait at once; others get 429"),
    ):
        if not (is_class and "--token-env" in flags):
            parser.add_argument(*flags, type=kind, help=text, metavar=flags[-1].strip("-").upper())
    parser.set_defaults(engine="auto", host="127.0.0.1", port=SERVE_PORT)


def _gateway_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a YAML file: backends, models, rules, prices, keys")
    parser.add_argument("--check", action="store_true", help="ask every backend, say what would be done, and end")
    parser.add_argument("--host", default="127.0.0.1", help="which addresses reach it (127.0.0.1: this machine only)")
    parser.add_argument(
        "--port", type=int, default=GATEWAY_PORT, help=f"where it listens ({GATEWAY_PORT}); 0 = any free port"
    )
    parser.add_argument("--tls-cert", help="the certificate, for https")
    parser.add_argument("--tls-key", help="the key of the certificate")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="llmlab", description="LLM inference in Jupyter.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="lab|demo|doctor|serve|class|gateway|labs")
    commands.add_parser("lab", help="open JupyterLab on the quickstart; further options go to JupyterLab")
    commands.add_parser("demo", help="run the quickstart without a browser into build/quickstart.html")
    commands.add_parser("doctor", help="say what this machine can run, and what is missing")
    serving = commands.add_parser("serve", help="load MODEL behind an OpenAI-compatible endpoint")
    _serve_arguments(serving)
    teaching = commands.add_parser("class", help="load MODEL for a class: a token and fair turns for each student")
    _serve_arguments(teaching, is_class=True)
    class_command.add_arguments(teaching)
    _gateway_arguments(commands.add_parser("gateway", help="one OpenAI-compatible door over several backends"))
    labs_command.add_arguments(commands.add_parser("labs", help="build the labs for a course, grade what is handed in"))
    known, rest = parser.parse_known_args(arguments)
    if rest and known.command != "lab":
        parser.error(f"unknown option {rest[0]!r} for `llmlab {known.command}`")
    try:
        if known.command == "lab":
            lab(rest)
        elif known.command == "demo":
            print(f"The quickstart ran. Open {demo(Path.cwd())}")
        elif known.command == "serve":
            from llmlab.serve.command import serve_model

            serve_model(known)
        elif known.command == "class":
            class_command.run(known)
        elif known.command == "gateway":
            from llmlab.gateway.command import run_gateway

            run_gateway(known)
        elif known.command == "labs":
            labs_command.run(known)
        else:
            from llmlab.doctor import doctor

            report = doctor()
            print(report)
            sys.exit(not report.ok)
    except LlmlabError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
