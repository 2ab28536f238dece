"""A report as a file: HTML, Markdown, and PDF where a Chromium is installed to print it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from llmlab.errors import LlmlabError
from llmlab.report.markdown import markdown
from llmlab.report.page import page

if TYPE_CHECKING:
    from llmlab.report.making import Report

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_PRINT_S = 60


def save(report: Report, path: Path) -> Path:
    """Raises: LlmlabError for a suffix that is none of .html, .md, .pdf; or for a PDF without a browser."""
    if path.suffix in (".html", ".htm"):
        path.write_text(page(report), encoding="utf-8")
    elif path.suffix == ".md":
        path.write_text(markdown(report), encoding="utf-8")
    elif path.suffix == ".pdf":
        _print(page(report), path)
    else:
        raise LlmlabError(
            f"A report is written as .html, .md or .pdf, not as {path.suffix or 'a file without a suffix'!r}."
        )
    return path


def _print(content: str, path: Path) -> None:
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise LlmlabError(
            f"No Chromium is installed to print {path}. Write {path.with_suffix('.html')} and print it from a browser."
        )
    with tempfile.TemporaryDirectory(prefix="llmlab-pdf-") as scratch:
        source = Path(scratch) / "report.html"
        source.write_text(content, encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += [
            f"--user-data-dir={scratch}",
            "--no-pdf-header-footer",
            f"--print-to-pdf={path.resolve()}",
            source.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PRINT_S, check=False)
    if done.returncode or not path.exists():
        raise LlmlabError(
            f"{browser} did not print {path}: {done.stderr.strip().splitlines()[-1:]}. Write .html instead."
        )
