"""A typed line becomes values, or one line that says what is wrong and what to type."""

from __future__ import annotations

import pytest
from IPython.core.error import UsageError

from llmlab.magics import grammar, manual, resolve
from llmlab.magics.parsing import parse


def parsed(line: str) -> dict[str, object]:
    """What was given on a %llm line, without what was not."""
    verb, rest = resolve.split_verb(line)
    return {name: value for name, value in vars(parse(verb, rest)).items() if value is not None and value is not False}


def refused(line: str) -> str:
    with pytest.raises(UsageError) as error:
        parsed(line)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_line_that_is_no_verb_is_a_prompt_and_keeps_its_spaces_and_quotes():
    assert parsed("""What's  "2 + 2", or 5 -3?""") == {"text": """What's  "2 + 2", or 5 -3?"""}


@pytest.mark.parametrize(
    "line", ["Why is it so? -n 64", "-n 64 Why is it so?", "Why is -n 64 it so?", "-n64 Why is it so?"]
)
def test_flags_may_stand_before_in_and_after_a_prompt(line: str):
    assert parsed(line) == {"text": "Why is it so?", "max_tokens": 64}


def test_quotes_around_the_whole_prompt_are_not_part_of_it():
    assert parsed('"Why is it so?" -t 0') == {"text": "Why is it so?", "temperature": 0.0}


def test_words_in_quotes_are_never_flags():
    assert parsed('Explain "-n" and "--max-token x" -s "-t"') == {
        "text": 'Explain "-n" and "--max-token x"',
        "system": "-t",
    }
    assert parsed('"--what does this do"') == {"text": "--what does this do"}


def test_what_follows_two_dashes_is_sent_as_it_is():
    assert parsed("-- load the dishwasher -n 5") == {"text": "load the dishwasher -n 5"}
    assert parsed("-n 3 -- what does  ls -l do?") == {"text": "what does  ls -l do?", "max_tokens": 3}


def test_words_that_only_look_a_bit_like_flags_are_text():
    assert parsed("sort [3, -5] with ls -la -> a list - now") == {"text": "sort [3, -5] with ls -la -> a list - now"}


def test_a_flag_may_be_given_in_each_of_its_spellings():
    for line in ("hi -s 'be brief'", "hi --system 'be brief'", "hi --system='be brief'", 'hi --system="be brief"'):
        assert parsed(line) == {"text": "hi", "system": "be brief"}


def test_stop_may_be_repeated_and_knows_line_breaks():
    assert parsed(r"hi --stop '\n' --stop END") == {"text": "hi", "stop": ["\n", "END"]}


def test_options_of_the_engine_are_pairs_with_python_values():
    assert parsed("load smol --opt flash_attn=False mode=fast --opt n=3 -q F16") == {
        "model": "smol",
        "opt": {"flash_attn": False, "mode": "fast", "n": 3},
        "quant": "F16",
    }


def test_a_value_that_looks_like_a_flag_after_expansion_stays_a_value():
    verb, rest = resolve.split_verb("load {name}")
    assert parse(verb, rest, lambda text: text.replace("{name}", "--all of it")).model == "--all of it"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Why? --max-token 64", "Did you mean --max-tokens?"),
        ("Why? --max-token 64", "`%llm -- your prompt`"),
        ("Why? -n many", "-n takes a whole number, and got 'many'."),
        ("Why? -n", "-n needs a value"),
        ("Why? -s -n 5", "-s needs a value"),
        ("Why? -f mdx", "-f takes md, text, code, json, html, raw, and got 'mdx'. Did you mean md?"),
        ("Why? -q=1", "-q takes no value"),
        ("Why? -o a-b", "-o takes the name of a variable"),
        ("load", "%llm load MODEL needs MODEL"),
        ("load the dishwasher", "To send the line as a prompt: `%llm -- load the dishwasher`"),
        ("load smol --opt fast", "--opt needs a value"),
        ("load smol --cxt 3", "Did you mean --ctx?"),
        ("slow fast", "SECONDS takes a number, and got 'fast'."),
        ("unlod", "Did you mean `%llm unload`? To send it as a prompt: `%llm -- unlod`"),
        ("Models", "Did you mean `%llm models`?"),
        ("laod smol -e llamacpp", "Did you mean `%llm load`?"),
        ("trace", "%llm trace needs save, load, replay, export."),
        ("trace the origin of Rome", "`%llm -- trace the origin of Rome`"),
    ],
)
def test_wrong_syntax_is_one_line_that_says_what_to_type(line: str, message: str):
    assert message in refused(line)


@pytest.mark.parametrize("line", ["hello", "Hi", "rain", "Why?", "42"])
def test_a_single_word_that_is_not_nearly_a_verb_is_a_prompt(line: str):
    assert parsed(line) == {"text": line}


def test_a_cell_without_a_verb_takes_a_name_and_flags():
    verb, rest = resolve.split_cell_verb("smol -n 5 --chat")
    assert verb is grammar.CELL
    args = parse(verb, rest)
    assert (args.name, args.max_tokens, args.chat) == ("smol", 5, True)


def test_a_verb_that_takes_no_cell_says_so():
    with pytest.raises(UsageError, match="load takes no cell: type `%llm load smol` on a line of its own"):
        resolve.split_cell_verb("load smol")


def test_every_verb_has_help_that_lists_its_flags():
    for verb in (grammar.PROMPT, grammar.CELL, grammar.STATUS, *grammar.VERBS.values()):
        text = manual.help_text(verb)
        assert text.startswith(verb.title)
        assert all(name in text for option in verb.options for name in option.names)
        assert verb.title in manual.table()


def test_no_verb_gives_two_flags_the_same_name():
    for verb in (grammar.PROMPT, grammar.CELL, *grammar.VERBS.values()):
        names = [name for option in verb.options for name in option.names]
        assert len(names) == len(set(names)), verb.name
