"""How good the answers of an engine are: perplexity of a text, and questions with one right answer.

>>> import llmlab
>>> llmlab.perplexity(engine)             # of a text that no model was trained on      # doctest: +SKIP
>>> llmlab.exact_answers(engine).share    # doctest: +SKIP

A quant is worth its size and its speed only together with these two. Reading order: perplexities, exact.
"""

from llmlab.quality.exact import ExactAnswers, exact_answers
from llmlab.quality.perplexities import Perplexity, perplexity

__all__ = ["ExactAnswers", "Perplexity", "exact_answers", "perplexity"]
