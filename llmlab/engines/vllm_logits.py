"""The log probabilities of the whole vocabulary at every position of a text, asked of vLLM as one request.

This file must not know traces or requests of others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llmlab.engines.base import Floats
from llmlab.engines.vllm_core import Core
from llmlab.engines.vllm_sampling import prompt_logits_sampling
from llmlab.errors import EngineError

REQUEST_ID = "llmlab-logits"


def prompt_logprobs(core: Core, token_ids: list[int], *, lora: Any = None) -> Floats:
    """[num_tokens, num_vocab]; row i is what follows token i. The engine must be idle. Kept prefixes are forgotten.

    Read from the arrays of the core's output: vLLM's own front end would make one dict entry for each number.
    """
    core.add(core.request(REQUEST_ID, token_ids, prompt_logits_sampling(), lora=lora))
    rows = np.empty((len(token_ids), core.num_vocab), np.float32)
    while (found := _output_of(core.get_output())) is None:
        if not core.has_requests and not core.is_in_flight:
            raise EngineError("vLLM gave no log probabilities of the prompt; `%llm logs` has what it printed.")
    of_prompt, of_next = found.new_prompt_logprobs_tensors, found.new_logprobs
    if of_prompt is not None and len(token_ids) > 1:
        _fill(rows[:-1], np.asarray(of_prompt.logprob_token_ids), np.asarray(of_prompt.logprobs))
    _fill(rows[-1:], np.asarray(of_next.logprob_token_ids), np.asarray(of_next.logprobs))
    while core.is_in_flight:
        core.get_output()
    core.forget_prefixes()
    return rows


def _output_of(outputs: Any) -> Any:
    """Ours among the outputs of a step; None when it has none."""
    return next((output for output in outputs.outputs if output.request_id == REQUEST_ID), None)


def _fill(rows: Floats, token_ids: Any, logprobs: Any) -> None:
    """Column 0 of both is the token that came, the others are all tokens, the most likely first."""
    np.put_along_axis(rows, token_ids.astype(np.int64), logprobs, axis=1)
