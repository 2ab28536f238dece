"""The same prompts on several engines, quants or settings, side by side, down to the first token that differs.

>>> import llmlab
>>> found = llmlab.compare("Why is the sky blue?", engines=[f16, q4], max_tokens=64)    # doctest: +SKIP
>>> found.first_divergence.cause.name                                                   # doctest: +SKIP
'quantization'

Reading order: prompt_sets (what is asked), columns (who is asked, and how), turns (who answers when), answers (what
comes), comparison (what the notebook holds), partings (where two columns part), causes (why, tested), diffs (which
words), votes (blind mode), tables (all of it as rows), asking (the function compare()).
"""

from llmlab.compare.asking import compare
from llmlab.compare.columns import Column
from llmlab.compare.comparison import Comparison
from llmlab.compare.diffs import Change, diff
from llmlab.compare.partings import Parting
from llmlab.compare.prompt_sets import PromptSet, prompt_set
from llmlab.compare.votes import Vote, wilson

__all__ = [
    "Change",
    "Column",
    "Comparison",
    "Parting",
    "PromptSet",
    "Vote",
    "compare",
    "diff",
    "prompt_set",
    "wilson",
]
