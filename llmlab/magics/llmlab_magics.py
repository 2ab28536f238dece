"""The magics themselves: %llm and %%llm. What a line does is in running.py, imported when the first line is typed.

This file must stay light: it is what `%load_ext llmlab` imports.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any
from weakref import WeakKeyDictionary, ref

from IPython.core.magic import line_cell_magic, magics_class, needs_local_scope, no_var_expand

from llmlab.magics.chat import CellNames, Chat
from llmlab.magics.defaults import Defaults
from llmlab.magics.shown import ShownOnce


@magics_class
class LLMLab(Defaults):
    """LLM inference in a notebook. `%config LLMLab` lists the defaults, `%llm help` the verbs."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.shown_once = ShownOnce(shell)
        self.cells = CellNames(shell)
        # handle -> its conversation
        self.chats: WeakKeyDictionary[Any, Chat] = WeakKeyDictionary()
        # cell -> what its %llm load asked for, and the handles it got, while they are in use
        self.loads: dict[Hashable, tuple[Any, tuple[ref[Any], ...]]] = {}

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def llm(self, line: str, cell: str | None = None, local_ns: Mapping[str, Any] | None = None) -> object:
        """
        %llm                             Engines, memory, defaults, and what to type next.
        %llm PROMPT                      Ask the current engine; anything that is not a verb is a prompt.
        %%llm [NAME]                     Ask the engine NAME, or the current one; the prompt is the cell below.
        %llm load MODEL                  Load MODEL in an engine, in a process of its own.
        %llm ps                          The loaded engines.
        %llm use NAME                    Make NAME the engine that answers.
        %llm unload [NAME]               End an engine and give its memory back.
        %llm logs [NAME]                 What the engine itself printed.
        %llm models                      The models known by name, and which forms of them are made.
        %llm doctor                      What this machine can run, and what to type for the rest.
        %%llm batch [NAME]               Many prompts at once, one a line (`---` between longer ones).
        %%llm compare                    The same prompt on several engines, quants or settings, side by side.
        %llm mem [RUN]                   Memory of the engine: its process, weights, KV cache; or KV use of a RUN.
        %llm kv [RUN]                    Who holds the KV cache, step by step: of a RUN, or of the last one.
        %llm timeline [RUN]              What each request did in each step: prefill, decode, wait.
        %llm tokens TEXT                 How TEXT is cut into tokens; of a result in a variable, how likely each was.
        %llm pause                       Hold the engine after its current step.
        %llm step [N]                    Let a paused engine take N steps (1).
        %llm resume                      Let the engine run freely again.
        %llm slow SECONDS                Slow motion: SECONDS between steps; 0 = full speed.
        %llm parity [A] [B]              Whether two engines compute the same: tokens, settings, logits, answers.
        %llm bench                       How engines do under load, and which one to take.
        %llm trace save FILE             Write what the engine did to FILE (.jsonl, .jsonl.gz).
        %llm trace load FILE             Read a trace; it is the value of the line.
        %llm trace replay FILE           Play a recorded trace again, as it was.
        %llm trace export perfetto FILE  Write what the engine did for another viewer: perfetto = ui.perfetto.dev, chrome://tracing.
        %llm connect URL                 An engine behind a URL, to be used as one that is loaded.
        %llm class [URL]                 Join a class: its engine answers, and the batch that all share is shown live.
        %llm serve [NAME]                An OpenAI-compatible endpoint of a loaded engine; `%llm serve stop` ends it.
        %llm lab list                    The labs there are.
        %llm lab start ID                Copy the notebook of lab ID; work that is there is never overwritten.
        %llm lab predict Q VALUE         Write your guess for question Q down before you look.
        %llm lab check [Q]               Check question Q, or all: points, reasons, two pictures.
        %llm lab hint Q                  The next hint to question Q; hints are counted.
        %llm lab report                  Write predictions, results, hints and pictures into one page.
        %llm help [VERB]                 This table, or the flags of one verb.

        `%llm help VERB` or `--help` lists the flags; `%llm -- text` sends any text as a prompt.
        """
        from llmlab.magics.running import run

        return run(self, line, cell, local_ns)
