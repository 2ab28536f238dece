"""Translations: each key is a sentence of the code, templates keep their fields, all that is promised is there."""

from __future__ import annotations

import json
import string
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import translations
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from llmlab import cli, language
from llmlab.language import TRANSLATIONS, VARIABLE, read, tr

sentences = cache(translations.sentences)
LANGUAGES = sorted(folder.name for folder in TRANSLATIONS.iterdir() if folder.is_dir())
FILES = [(name, file) for name in LANGUAGES for file in sorted((TRANSLATIONS / name).glob("*.toml"))]


# Fields for what only English has: the s of a plural, it or them.
OF_ENGLISH = {"s", "them"}


@pytest.fixture
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "zh_CN")


def fields(text: str) -> set[tuple[str, str, str | None]]:
    """Name, format and conversion of each {field}; none where the braces are text."""
    try:
        return {(name, spec or "", how) for _, name, spec, how in string.Formatter().parse(text) if name is not None}
    except ValueError:
        return set()


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_translation_covers_all_that_it_promises(name: str):
    missing = {text for file, wanted in sentences().items() for text in wanted if not language.table(name).get(text)}
    assert not missing, f"`python scripts/translations.py {name}` adds these to the files:\n" + "\n".join(missing)


@pytest.mark.parametrize(("name", "file"), FILES, ids=lambda value: getattr(value, "stem", value))
def test_no_entry_is_stale_or_twice_there_and_each_keeps_its_fields(name: str, file: Path):
    entries, known = read(file), sentences().get(file.stem, [])
    stale = [entry["en"] for entry in entries if entry["en"] not in known]
    assert not stale, f"`python scripts/translations.py {name}` drops these:\n" + "\n".join(stale)
    twice = [text for text, count in Counter(entry["en"] for entry in entries).items() if count > 1]
    assert not twice, twice
    for entry in entries:
        lost = fields(entry["en"]) ^ fields(entry["to"])
        assert {field for field, _, _ in lost} <= OF_ENGLISH, entry["en"]


@pytest.mark.parametrize(("name", "file"), FILES, ids=lambda value: getattr(value, "stem", value))
def test_code_links_and_headings_of_a_text_are_those_of_the_original(name: str, file: Path):
    """`code` in a sentence is typed as it stands, in any language."""
    for entry in read(file):
        if "|" in entry["en"] and "\n" not in entry["en"] and " | " not in entry["en"]:
            assert entry["to"].count("|") == entry["en"].count("|"), entry["en"]  # columns of a table
        for mark in ("`", "**", "\n- ", "\n1. "):
            assert entry["to"].count(mark) == entry["en"].count(mark), (mark, entry["en"], entry["to"])
        assert code_in(entry["to"]) == code_in(entry["en"]), entry["en"]
        heads = [[line.split()[0] for line in text.splitlines() if line.startswith("#")] for text in entry.values()]
        assert heads[0] == heads[1], entry["en"]


def code_in(text: str) -> list[str]:
    """What stands between backticks, in any order."""
    return sorted(text.split("`")[1::2])


def test_english_is_the_default_and_a_language_that_nobody_wrote_is_english(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert tr("{name} is loaded", name="a") == "a is loaded"
    monkeypatch.setenv(VARIABLE, "tlh")
    assert tr("{name} is loaded", name="a") == "a is loaded"
    monkeypatch.setenv(VARIABLE, "zh-CN.UTF-8")
    assert tr("{name} is loaded", name="a") != "a is loaded"
    assert tr("a sentence of nobody") == "a sentence of nobody"


def test_the_verbs_of_llm_speak_chinese(shell: InteractiveShell, chinese: None, capsys: pytest.CaptureFixture[str]):
    shell.run_line_magic("llm", "help lab")
    assert (
        language.table("zh_CN")["Check question Q, or all: points, reasons, two pictures."] in capsys.readouterr().out
    )
    with pytest.raises(UsageError) as raised:
        shell.run_line_magic("llm", "lab hint")
    assert "%llm lab hint Q" in str(raised.value) and "needs" not in str(raised.value)


def test_a_lab_and_the_quickstart_are_copied_in_chinese_and_their_code_stays(tmp_path: Path, chinese: None):
    import llmlab
    from llmlab.labs import work

    llmlab.labs.start("lab03", tmp_path)
    work._current = None
    for path in (tmp_path / "lab03_paged_kv.ipynb", cli.find_quickstart(tmp_path)):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        assert all(any("\u4e00" <= sign <= "\u9fff" for sign in text) for text in texts)
        assert any("%load_ext llmlab" in "".join(cell["source"]) for cell in cells)
    assert path.name == "00_quickstart.zh_CN.ipynb"


def test_without_a_language_the_quickstart_of_a_checkout_is_opened_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert cli.find_quickstart(translations.ROOT) == translations.ROOT / "notebooks" / "00_quickstart.ipynb"


def test_a_reason_is_chinese_and_a_chinese_answer_is_counted_by_its_signs(chinese: None):
    from llmlab.labs.description import CheckFailed
    from llmlab.labs.reflection import answered

    answered("Q7", 0, {"reflection": ["连续存放只能放下 8 个序列，分页能放下十几个。"]}, 0)
    with pytest.raises(CheckFailed, match="第 1 个回答有 5 个字；请至少写 15 个"):
        answered("Q7", 0, {"reflection": ["分页好 8 倍"]}, 0)


def test_where_no_font_has_its_signs_a_picture_is_in_english_with_the_sentence_below(
    chinese: None, monkeypatch: pytest.MonkeyPatch
):
    from llmlab.labs.pictures import Blocks, blocks_picture, html_of, png_of, text_of
    from llmlab.views import twin_paper

    one, other = Blocks({"a": [0]}, [1, 0], 1), Blocks({"a": [0]}, [2, 0], 1)
    picture = blocks_picture(one, other, "free('s')", "有块泄漏了")
    assert text_of(picture).startswith("free('s') 之后:")
    monkeypatch.setattr(twin_paper, "chinese_font", lambda size: None)
    assert html_of(picture).endswith("<p><b>有块泄漏了</b></p>")
    with language.english():
        english = png_of({**picture, "sentence": ""})
    assert b64encode(english).decode() in html_of(picture)


def test_nothing_is_read_where_english_is_spoken():
    code = "import sys, llmlab.language, llmlab.cards; assert 'tomllib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": ""})
