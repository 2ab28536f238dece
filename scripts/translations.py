"""Every sentence that a student reads, by the file of a translation that it belongs to.

    python scripts/translations.py zh_CN      adds what is new, with an empty `to`, and drops what is gone

Sentences are found where they stand: in calls of tr(), in the tables that are shown through it (the verbs of %llm, the
sentences and descriptions of labs), and in the text cells of notebooks.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from llmlab.labs.description import Question
from llmlab.labs.finding import find_lab
from llmlab.labs.master import cells_of, without_solutions
from llmlab.labs.sentences import SENTENCES
from llmlab.language import TRANSLATIONS, read
from llmlab.magics.defaults import Defaults
from llmlab.magics.grammar import CELL, PROMPT, STATUS, VERBS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "llmlab"
QUICKSTART = ROOT / "notebooks" / "00_quickstart.py"
# The labs that a translation covers wholly.
LABS = ("lab01", "lab02", "lab03")


def sentences() -> dict[str, list[str]]:
    """Name of a file -> its sentences. What several files have in common belongs to the first."""
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for name, texts in _sources():
        found[name] = [text for text in dict.fromkeys(texts) if text not in seen]
        seen.update(found[name])
    return found


def _sources() -> Iterator[tuple[str, list[str]]]:
    yield "magics", [*_of_grammar(), *_of_code(PACKAGE / "errors.py", *_of("magics")), *_kinds()]
    yield "serving", list(_of_code(PACKAGE / "engines" / "limits.py", *_of("serve"), *_of("remote")))
    yield "classroom", list(_of_code(*_of("classroom")))
    yield "gateway", list(_of_code(*_of("gateway")))
    yield "labs", [*SENTENCES.values(), *_of_code(*_of("labs"))]
    yield "quickstart", text_cells(QUICKSTART.read_text(encoding="utf-8"))
    for lab_id in LABS:
        yield lab_id, list(_of_lab(lab_id))


def _of(package: str) -> Iterator[Path]:
    return (PACKAGE / package).rglob("*.py")


def _of_grammar() -> Iterator[str]:
    for verb in (STATUS, PROMPT, CELL, *VERBS.values()):
        yield verb.help
        yield from (argument.help for argument in verb.arguments)
        yield from (option.help for option in verb.options)
    yield from (trait.help for trait in Defaults.class_traits(config=True).values())


def _of_lab(lab_id: str) -> Iterator[str]:
    lab = find_lab(lab_id)
    yield lab.title
    yield from text_cells(without_solutions((lab.folder / "lab.py").read_text(encoding="utf-8")))
    for question in lab.questions:
        yield from _of_question(question)
    yield from (figure.name for figure in lab.figures)
    yield from _of_code(lab.folder / "checks.py")


def _of_question(question: Question) -> Iterator[str]:
    yield question.title
    yield from (check.name for check in question.checks)
    yield from question.hints
    if question.prediction is not None:
        yield question.prediction.asks
        yield question.prediction.because


def text_cells(master: str) -> list[str]:
    """The Markdown cells of a notebook that is kept as a py:percent file."""
    return [cell.text for cell in cells_of(master) if not cell.is_code]


def _of_code(*files: Path) -> Iterator[str]:
    """The first argument of each tr(...), or both of them where it is a choice."""
    for call in _calls(files, "tr"):
        yield from (node.value for node in ast.walk(call.args[0]) if _is_text(node))  # type: ignore[attr-defined]


def _kinds() -> Iterator[str]:
    """What a name may be that nobody knows: the first argument of each unknown(...)."""
    for call in _calls(sorted(PACKAGE.rglob("*.py")), "unknown"):
        if _is_text(call.args[0]):
            yield call.args[0].value  # type: ignore[attr-defined]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _calls(files: Iterable[Path], name: str) -> Iterator[ast.Call]:
    for file in sorted(files):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name and node.args:
                yield node


def update(folder: Path) -> None:
    """Bring the files of a language up to date; what stands above their entries stays."""
    for name, wanted in sentences().items():
        file = folder / f"{name}.toml"
        head = file.read_text(encoding="utf-8").partition("[[text]]")[0] if file.exists() else ""
        known = {entry["en"]: entry["to"] for entry in read(file)} if file.exists() else {}
        entries = (f"[[text]]\nen = {_toml(text)}\nto = {_toml(known.get(text, ''))}\n" for text in wanted)
        file.write_text(head + "\n".join(entries), encoding="utf-8")
        print(f"{file}: {len(wanted)} sentences, {sum(not known.get(text) for text in wanted)} to be translated")


def _toml(text: str) -> str:
    return f"'''\n{text}'''" if "\n" in text else json.dumps(text, ensure_ascii=False)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Which language? For example: python scripts/translations.py zh_CN")
    (TRANSLATIONS / sys.argv[1]).mkdir(parents=True, exist_ok=True)
    update(TRANSLATIONS / sys.argv[1])
