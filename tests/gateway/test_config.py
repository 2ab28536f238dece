"""A configuration: the example of the docs, and mistakes, each told with its line and what would do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmlab.gateway import ConfigError, read_config
from llmlab.gateway.checking import model_words
from llmlab.gateway.config import Config
from llmlab.gateway.reading import parse_config

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "deploy" / "gateway" / "config.yaml"
GOOD = """\
backends:
  main: {url: http://127.0.0.1:8000, price: {prompt: 1, output: 2}}
  laptop:
    url: http://127.0.0.1:8001
    seats: 2
models:
  chat:
    backends: {main: big, laptop: small}
    prefer: load
    rules:
      - {prompt_tokens_over: 2048, use: main}
keys:
  ann: {token_env: ANN_TOKEN, models: [chat]}
"""


def test_the_example_of_the_docs_is_the_one_that_is_deployed_and_it_loads():
    shown = re.search(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "hybrid.md").read_text(), re.MULTILINE | re.DOTALL)
    assert shown is not None and shown[1] == EXAMPLE.read_text()
    config = read_config(EXAMPLE)
    assert list(config.backends) == ["vllm-main", "lab-cpu", "laptop"]
    assert list(model_words(config.models["small"], config)) == [
        "prompt of more than 1,024 tokens: vllm-main first.",
        "key exam: lab-cpu, then vllm-main first.",
        "Else the cheapest of laptop, lab-cpu, vllm-main.",
        "laptop never gets a prompt of more than 2,048 tokens.",
        "lab-cpu never gets a prompt of more than 2,048 tokens.",
        "vllm-main comes last while more than 32 wait there.",
        "vllm-main comes last while its KV cache is more than 95% full.",
    ]


def test_what_is_left_out_has_a_value_that_does():
    config = parse_config(GOOD)
    assert (config.log, config.poll_s, config.models["chat"].prefer) == ("gateway.jsonl", 1.0, "load")
    assert config.backends["laptop"].price is None  # not known is not free


@pytest.mark.parametrize(
    ("good", "bad", "line", "says"),
    [
        ("seats: 2", "seat: 2", 5, "backends.laptop.seat: Unknown field 'seat'"),
        ("seats: 2", "seat: 2", 5, "Did you mean 'seats'?"),
        ("seats: 2", "seats: two", 5, "backends.laptop.seats: Expected `int`, got `str`."),
        ("seats: 2", "seats: 0", 5, "backends.laptop.seats: Expected `int` >= 1."),
        ("    seats: 2\n", "    seats: 2\n    seats: 3\n", 6, "backends.laptop.seats: It is there twice"),
        ("output: 2", "out: 2", 2, "Did you mean 'output'?"),
        ("output: 2", "output: -1", 2, "backends.main.price.output: Expected `float` >= 0.0."),
        ("    url: http://127.0.0.1:8001\n", "", 3, "backends.laptop: Object missing required field `url`."),
        ("url: http://127.0.0.1:8001", "url: laptop:8001", 4, "'laptop:8001' is no URL of a server"),
        ("laptop: small", "lap: small", 8, "models.chat.backends.lap: Unknown backend 'lap'"),
        ("use: main", "use: mian", 11, "models.chat.rules.0.use: Unknown backend 'mian'. Known: laptop, main."),
        ("prompt_tokens_over: 2048, ", "", 11, "models.chat.rules.0: It has no condition"),
        ("prompt_tokens_over", "prompt_token_over", 11, "Did you mean 'prompt_tokens_over'?"),
        ("prefer: load", "prefer: cheap", 9, "models.chat.prefer: Invalid enum value 'cheap'."),
        ("prefer: load", "prefer: price", 9, "laptop has none. Give it one (0 is one)."),
        ("models: [chat]", "models: [chta]", 13, "Did you mean 'chat'?"),
        ("keys:\n  ann: {token_env: ANN_TOKEN, models: [chat]}\n", "", 1, "Nobody could ask"),
        ("keys:", "kees:", 12, "Did you mean 'keys'?"),
        ("seats: 2", "seats: @2", 5, "This is no YAML"),
        ("  chat:", "  - chat:", 6, "models: Expected `object`, got `array`."),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_would_do(good: str, bad: str, line: int, says: str):
    assert GOOD.count(good) == 1
    with pytest.raises(ConfigError) as raised:
        parse_config(GOOD.replace(good, bad))
    assert raised.value.line == line, str(raised.value)
    assert str(raised.value).startswith(f"config.yaml, line {line}: ")
    assert says in str(raised.value)


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b\n", "backends: {}\nmodels: {}\n"])
def test_what_is_no_configuration_says_what_one_has(text: str):
    with pytest.raises(ConfigError, match="line 1"):
        parse_config(text)


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ("!!int two", "line 5: backends.laptop.seats: It is not what its tag"), ("!mine 2", "there is no such tag"),
        ("!!python/object/apply:os.getcwd []", "line 5"), ("!!binary x", "line 5"), ("!!timestamp x", "line 5"),
        ("{[1]: 2}", "line 5: backends.laptop.seats: A name of what follows is a text"), ("&a [*a]", "contains itself"),
        ("[" * 700, "nested too deep"), ("2\n    ? {a: b}\n    : 2", "A name of what follows"),
    ],
)  # fmt: skip
def test_what_yaml_can_say_and_a_configuration_cannot_is_told(odd: str, says: str):
    with pytest.raises(ConfigError, match=re.escape(says)):
        parse_config(GOOD.replace("seats: 2", f"seats: {odd}"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere.yaml: It cannot be read"):
        read_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("place", ["api_key: sk-very-secret", "token: sk-very-secret", "key: sk-very-secret"])
def test_a_key_in_the_file_is_refused_and_not_repeated(place: str):
    with pytest.raises(ConfigError, match="Keys never stand in this file") as raised:
        parse_config(GOOD.replace("seats: 2", place))
    assert raised.value.line == 5
    assert "sk-very-secret" not in str(raised.value)


@pytest.mark.parametrize("old", ["seats: 2", "token_env: "])
def test_a_key_in_place_of_the_name_of_its_variable_is_refused_and_not_repeated(old: str):
    assert old in GOOD
    new = "api_key_env: sk-very-secret" if old == "seats: 2" else "token_env: sk-very-secret-"
    text = GOOD.replace(old, new, 1)
    with pytest.raises(ConfigError, match=r"line \d+: .*the name of an environment variable") as raised:
        parse_config(text)
    assert "sk-very-secret" not in str(raised.value)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_in_another_encoding_is_told_what_to_do(encoding: str, tmp_path: Path):
    (tmp_path / "config.yaml").write_bytes(f"# É\n{GOOD}".encode(encoding))
    with pytest.raises(ConfigError, match=r"config.yaml: It is no text in UTF-8. Save it as one"):
        read_config(tmp_path / "config.yaml")


def test_what_an_editor_of_windows_saves_is_read(tmp_path: Path):
    (tmp_path / "config.yaml").write_bytes(GOOD.replace("\n", "\r\n").encode("utf-8-sig"))
    assert read_config(tmp_path / "config.yaml") == parse_config(GOOD)


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(ConfigError, match="A password in a URL") as raised:
        parse_config(GOOD.replace("http://127.0.0.1:8001", "http://me:sk-very-secret@host:99999"))
    assert "sk-very-secret" not in str(raised.value)
    for url in ("http://host:99999", "http://[::1", "ftp://host"):
        with pytest.raises(ConfigError, match="is no URL of a server"):
            parse_config(GOOD.replace("http://127.0.0.1:8001", url))


def test_a_config_prints_without_secrets_since_it_has_none():
    config = read_config(EXAMPLE)
    assert isinstance(config, Config)
    assert "COURSE_TOKEN" in repr(config)
