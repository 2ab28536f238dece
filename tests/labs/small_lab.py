"""A lab of four small questions, and submissions to it: good, wrong, hanging, crashing, damaged."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat

MASTER = '''\
# %% [markdown]
# # A small lab

# %%
# %load_ext llmlab
# %llm lab start lab99

# %%
import llmlab

# %%
from math import pi

# %%
engine = llmlab.load("smollm2-135m")
q1 = 1


# %%
def one():
    """Q1"""
    # BEGIN SOLUTION Q1: about 1 line
    return secret_one()
    # END SOLUTION


# BEGIN SOLUTION -> # Functions of your own, if you like.
def secret_one():
    return 1
# END SOLUTION


# %%
# %llm lab check Q1

# %%
def two():
    """Q2"""
    # BEGIN SOLUTION Q2: about 1 line
    return int(pi) - 1
    # END SOLUTION


# %%
# %llm lab check Q2

# %%
# %llm lab check Q3

# %%
# BEGIN SOLUTION -> reflection = [""]
reflection = ["of the secret answer in 15 words one two three four five six seven eight nine"]
# END SOLUTION

# %%
# %llm lab check Q4
'''
CHECKS = '''\
"""What is asked."""

from __future__ import annotations

from pathlib import Path

from llmlab.labs.description import Check, CheckFailed, Lab, Prediction, Question
from llmlab.labs.pictures import Blocks, blocks_picture
from llmlab.labs.reflection import reflection_question

WANTED = int((Path(__file__).parent / "two.txt").read_text())


def is_one(names, seed):
    got = names["one"]()
    if got != 1:
        reason = f"one() is {got!r}, expected 1"
        yours, expected = Blocks({"a": [0]}, [2], 1), Blocks({"a": [0]}, [1], 1)
        raise CheckFailed(reason, blocks_picture(yours, expected, "one()", reason))


def is_two(names, seed):
    if names["two"]() != WANTED:
        raise CheckFailed(f"two() is {names['two']()!r}")


def hidden_helper():
    """Only hidden checks use it."""


def is_two_for_all_seeds(names, seed):
    hidden_helper()
    is_two(names, seed)


LAB = Lab(
    "Lab 99: small",
    5,
    (),
    (
        Question("Q1", "one", ("one",), (Check("is one", 30, is_one),), prediction=Prediction("?", "q1", int, "one.")),
        Question("Q2", "two", ("two",), (Check("is two", 20, is_two),), ("A hint.",)),
        Question("Q3", "two again", ("two",), (Check("for all seeds", 10, is_two_for_all_seeds, is_hidden=True),)),
        reflection_question("Q4", "secret"),
    ),
)
'''
GOOD = (
    "def one():\n    return 1\n\n\ndef two():\n    return 2\n\n\n"
    'reflection = ["I saw the number 5 in each of my runs and so it is for all of them here"]\n'
)


def write_small_lab(labs: Path) -> Path:
    """Its folder."""
    folder = labs / "lab99_small"
    folder.mkdir(parents=True)
    (folder / "lab.py").write_text(MASTER)
    (folder / "checks.py").write_text(CHECKS)
    (folder / "two.txt").write_text("2")
    (folder / "reference.py").write_text(GOOD)
    return folder


def notebook_text(*cells: str, kernel: str = "python3", language: str = "python") -> str:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": language}
    return nbformat.writes(book)


def with_large_output(text: str, num_bytes: int) -> str:
    """A notebook whose first cell printed a lot."""
    whole = json.loads(text)
    whole["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * num_bytes}]
    return json.dumps(whole)
