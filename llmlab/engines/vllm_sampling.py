"""From our SamplingParams to vLLM's. The meaning is the same: ours follow vLLM's order of the filters.

This file must not know scheduling or tokens that came out.
"""

from __future__ import annotations

from typing import Any

from llmlab.engines.base import SamplingParams

# Our name -> the field of vLLM's StructuredOutputsParams.
_STRUCTURE_FIELDS = {"json_schema": "json"}


def vllm_sampling(params: SamplingParams) -> Any:
    """vLLM's SamplingParams. Stop strings stay with us: they are matched where the text is made.

    A temperature below 0.01 is 0.01 in vLLM, where it means the same as greedy but for the order of equal logits. A
    seed is left out where nothing is drawn: each one costs vLLM a generator.

    Raises: ValueError (vLLM's) for what it cannot use.
    """
    from vllm import SamplingParams as VllmSamplingParams

    return VllmSamplingParams(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p if params.temperature > 0 else 0.0,
        seed=params.seed if params.temperature > 0 else None,
        max_tokens=params.max_tokens,
        ignore_eos=params.ignore_eos,
        logprobs=params.logprobs,
        structured_outputs=_structure(params),
        detokenize=False,
        skip_clone=True,
    )


def prompt_logits_sampling() -> Any:
    """For logits(): the log probabilities of the whole vocabulary behind every token of the prompt."""
    from vllm import SamplingParams as VllmSamplingParams

    return VllmSamplingParams(temperature=0.0, max_tokens=1, logprobs=-1, prompt_logprobs=-1, detokenize=False)


def _structure(params: SamplingParams) -> Any:
    if (name := params.structure) is None:
        return None
    from vllm.sampling_params import StructuredOutputsParams

    value: Any = getattr(params, name)
    fields: dict[str, Any] = {_STRUCTURE_FIELDS.get(name, name): list(value) if name == "choice" else value}
    return StructuredOutputsParams(**fields)
