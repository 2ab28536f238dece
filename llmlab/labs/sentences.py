"""Every sentence that the runtime of the labs says to a student, by key; tr() has it in his language.

This file must not know when a sentence is said.
"""

from __future__ import annotations

from llmlab.language import tr

SENTENCES = {
    # ---- starting
    "no_labs": "This installation has no labs. Clone the repository and work from its folder.",
    "started": "{notebook} is yours: open it and work from top to bottom.",
    "kept": "{notebook} is kept as it is: it may hold your work. Start in another folder for a fresh one.",
    "not_started": "No lab is started in {folder}. Type `%llm lab start ID`; `%llm lab list` shows the ids.",
    "several": "{folder} has several labs: {labs}. Type `%llm lab start ID` to say which one you mean.",
    "next_after_list": "`%llm lab start ID` copies a lab into this folder. Work that is there is never overwritten.",
    # ---- predicting
    "no_prediction_asked": "{question} asks for no prediction. Those that do: {known}.",
    "predicted": "{question}: {value!r} is written down ({at}). Now run the cell, then `%llm lab check {question}`.",
    "predicted_again": "{question}: {value!r} is written down beside {before!r} ({at}).",
    "predicted_late": "{question}: {value!r} is written down ({at}), too late to count: its cell has run before.",
    "predict_first": "{question}: predict before you look: {asks} Type `%llm lab predict {question} VALUE`.",
    "run_first": "{question}: run the cell that fills `{variable}` first: the truth comes from your own run.",
    "revealed": "{question}: you: {value}, your run: {truth}, because {because}",
    "revealed_reported": "{question}: you: {value}, the recorded run: {truth} (reported), because {because}",
    "observed_reported": "{question}: {text} This is reported: the run was recorded on another computer.",
    # ---- checking
    "not_written": "{question} is not written yet.",
    "missing": "{question} needs {names}: run the cell that defines {them}.",
    "not_sent": "{name} cannot be sent to the process that checks it ({error}). Let it use only what it is given.",
    "not_loaded": "your code does not run: {error}",
    "forbidden": "{module} has the answer in it. Write {question} yourself: leave that out, and it counts.",
    "stopped_time": "{question} was stopped after {seconds:.0f} s: an endless loop{where}?",
    "stopped_memory": "{question} needed more than {limit} of memory and was stopped{where}: what grows in a loop?",
    "called_exit": "{question} ended Python with sys.exit(){where}: let it return instead.",
    "died": "{question} crashed Python ({signal}){where}. An array or a recursion out of bounds?",
    "ended": "{question} ended its process before it was checked (exit status {status}): does it call os._exit()?",
    "raised": "{error}{where}",
    "where": " in {function}(), line {line}{code}",
    "not_run": "not checked: {question} had ended before.",
    "to_be_read": "{question}: no figures of a run came with these answers, so any number counts: they are to be read.",
    "fix_first": "{reason}. Fix {question} first: {cause}",
    # ---- hints
    "no_hints": "{question} has no hints. Those that have: {known}.",
    "hint": "{question}, hint {number} of {count}: {text}",
    "last_hint": "That was the last one.",
    "more_hints": "`%llm lab hint {question}` again says more.",
    # ---- results
    "points": "{earned} of {points} points",
    "hidden_later": "{points} more points are checked when your work is graded, with other inputs.",
    "all_right": "All public checks pass.",
    "yours": "yours",
    "expected": "expected",
    "picture_title": "after {call}",
    "picture_free": "{count} free",
    "picture_free_block": "free",
    "picture_nobody": "nobody",
    "codes_legend": "bar: weight, line across it: what its code stands for, number: the code",
    "codes_scale": "scale {scale}",
    "picture_cached": "cached",
    "picture_empty": "empty",
    "picture_lookup": "lookup {name}",
    "picture_poison": " no KV!",
    "picture_step": "step {step}",
    "picture_in": "in {call}",
    "picture_tokens": "from step {first}, tokens of {budget}: {tokens}",
    "picture_signs": "P prefill, d decode, R recompute, . waiting, x preempted",
    "picture_more_wait": "{count} more wait",
    "picture_budget": "budget",
    "picture_legend": "waiting|prefill, tokens|decode, one token|recompute|preempted",
    # ---- what was handed in
    "file_no_notebook": "{file} is no notebook ({error}).",
    "file_damaged": "{file} is damaged ({error}): {count} of its cells could be read.",
    "file_huge": "{file} has {megabytes} MB and was not read: clear its outputs and hand it in again.",
    "file_large": "{file} has {megabytes} MB, most of them outputs.",
    "file_unreadable": "{file} cannot be read: {error}.",
    "file_no_code": "{file} has no code in it.",
    "file_kernel": "{file} was written for the kernel {kernel}; its cells are graded as Python.",
    "file_other": "{file} is neither a notebook nor a Python file.",
    "file_none": "No notebook was found in {folder}.",
    "file_chosen": "{count} files could be meant; {file} was graded.",
    "cell_no_python": "Code cell {number} is left out: {error}.",
    "defined_twice": "{name} is defined in the code cells {cells}: the last one counts.",
    "no_record": "No record ({file}) was handed in: predictions earn nothing.",
    "graded_score": "Score: {score:.1f} of 100",
    "graded_parts": "{predictions:.1f} of 6 for predictions before the run, {reflection:.0f} of 4 for reflection, "
    "{raw:.1f} of 90 for code.",
    "graded_notes": "What was handed in",
    "graded_source": "The code that was checked",
    "graded_output": "What it printed",
    # ---- tables: columns with | between them
    "labs_title": "Labs",
    "labs_columns": "id|title|time|questions|engines",
    "minutes": "{count} min",
    "results_title": "{lab}: {points}",
    "results_columns": "|check|points|why",
    "earned_of": "{earned} of {points}",
    "predictions_columns": "|asked|you|when|your run",
    "hints_columns": "|hints used",
    "report_written": "{path}: your predictions, results, hints and pictures in one page.",
    "report_predictions": "Predictions",
    "report_results": "Results",
    "report_hints": "Hints",
    "report_no_hints": "No hints were used.",
    "report_score": "Score so far: {score:.0f} of {possible:.0f}",
    "report_score_parts": "{predictions:.1f} of 6 for predictions before the run, {reflection:.0f} of 4 for "
    "reflection, {raw:.1f} of {raw_possible:.1f} for code.",
    "report_unchecked": "{question} was not checked yet.",
    "report_late": "after the truth was shown",
    "report_none": "none",
}  # fmt: skip


def say(key: str, **values: object) -> str:
    """The sentence of that key with its values.

    >>> say("not_written", question="Q3")
    'Q3 is not written yet.'
    """
    return tr(SENTENCES[key], **values)


def columns(key: str) -> tuple[str, ...]:
    """The names of the columns of a table.

    >>> columns("results_columns")
    ('', 'check', 'points', 'why')
    """
    return tuple(say(key).split("|"))
