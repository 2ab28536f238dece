"""`llmlab labs ...`: what an author and a lecturer do with labs. This file must not know how it is done."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="build|grade|starters")
    build = verbs.add_parser("build", help="student notebooks, and sources for otter-grader and nbgrader, into OUT")
    build.add_argument("out", metavar="OUT", type=Path, help="a folder")
    build.add_argument("labs", metavar="LAB", nargs="*", help="lab03 ...; all labs when none is named")
    grade = verbs.add_parser("grade", help="grade the submissions in FOLDER: a table, and a page for each student")
    grade.add_argument("folder", metavar="FOLDER", type=Path, help="a notebook, .py file or folder for each student")
    grade.add_argument("--csv", metavar="OUT.csv", type=Path, required=True, help="the table")
    grade.add_argument("--lab", metavar="LAB", help="which lab, where the files do not say so")
    grade.add_argument("--jobs", metavar="N", type=int, help="submissions at a time (as many as there are cores)")
    starters = verbs.add_parser("starters", help="write starter.py and reference.py anew from lab.py")
    starters.add_argument("labs", metavar="LAB", nargs="*", help="lab03 ...; all labs when none is named")


def run(asked: argparse.Namespace) -> None:
    """Raises: LlmlabError. Ends with status 1 when a submission could not be graded."""
    if asked.verb == "grade":
        from llmlab.labs.grading import grade

        done = grade(
            asked.folder, asked.csv, lab_id=asked.lab, jobs=asked.jobs, tell=lambda line: print(line, flush=True)
        )
        print(done)
        if not done.is_complete:
            sys.exit(1)
        return
    from llmlab.labs.building import build, remake_starters

    made = build(asked.out, asked.labs) if asked.verb == "build" else remake_starters(asked.labs)
    print(*made, sep="\n")
