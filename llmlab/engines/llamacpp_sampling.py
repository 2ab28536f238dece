"""From a row of logits to a token, on llama.cpp: greedy, llama.cpp's own sampler chain, grammars.

The order is the contract of SamplingParams, which is vLLM's: temperature, min-p, top-k, top-p. llama.cpp's usual
chain filters first and applies the temperature last, which is another distribution as soon as temperature != 1.
This file must not know requests or scheduling.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmlab.engines.base import Sampler, SamplingParams
from llmlab.engines.llamacpp_context import Context
from llmlab.engines.llamacpp_library import lib
from llmlab.errors import RequestError

Logits = NDArray[np.float32]


class TokenSampler:
    """Draws the tokens of one request. Holds its generator and its grammar state; survives preemption.

    Raises: RequestError when the grammar or the schema cannot be used.
    """

    def __init__(self, context: Context, params: SamplingParams, sampler: Sampler | None = None) -> None:
        self._context, self.params, self._sampler = context, params, sampler
        self._chain = self._grammar = None
        self._random = np.random.default_rng(params.seed)
        _refuse_what_only_vllm_does(params)
        if params.grammar is not None or params.json_schema is not None or params.choice is not None:
            self._grammar = self._start_grammar()
        if params.temperature > 0 and sampler is None:
            self._chain = self._start_chain()

    def sample(self, row: int) -> int:
        """The next token, drawn from the logits of a batch row."""
        if self._chain is not None:
            # the grammar, where there is one, is the first link of the chain; the call accepts the token as well
            return int(lib.llama_sampler_sample(self._chain, self._context.pointer, row))
        logits = self._context.logits(row)
        token_id = self._pick(logits)
        if self._grammar is not None:
            if not self._allowed(token_id):
                token_id = self._pick(self._masked(logits))
            lib.llama_sampler_accept(self._grammar, token_id)
        return token_id

    def _pick(self, logits: Logits) -> int:
        if self._sampler is None:
            return int(logits.argmax())
        probs = self._sampler.probs(logits, self.params)
        return int(self._sampler.draw(probs, float(self._random.random())))

    def _start_chain(self) -> Any:
        params = self.params
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        links = [self._grammar] if self._grammar is not None else []
        self._grammar = None  # the chain owns it now
        if params.temperature != 1:
            links.append(lib.llama_sampler_init_temp(params.temperature))
        if params.min_p > 0:
            links.append(lib.llama_sampler_init_min_p(params.min_p, 1))
        if params.top_k > 0:
            links.append(lib.llama_sampler_init_top_k(params.top_k))
        if params.top_p < 1:  # at 1, sums of floats would cut the tail
            links.append(lib.llama_sampler_init_top_p(params.top_p, 1))
        links.append(lib.llama_sampler_init_dist(params.seed))
        for link in links:
            lib.llama_sampler_chain_add(chain, link)
        return chain

    def _start_grammar(self) -> Any:
        params, grammar = self.params, self.params.grammar
        if params.choice is not None:
            grammar = choice_grammar(params.choice)
        if params.json_schema is not None:
            from llama_cpp.llama_grammar import json_schema_to_gbnf

            try:
                grammar = json_schema_to_gbnf(json.dumps(params.json_schema))
            except Exception as error:  # the converter raises whatever its recursion meets
                raise RequestError(f"json_schema cannot be turned into a grammar ({error}).") from error
        assert grammar is not None
        pointer = lib.llama_sampler_init_grammar(self._context.model.vocab, grammar.encode(), b"root")
        if not pointer:
            raise RequestError(
                f"llama.cpp cannot read the grammar {grammar[:60]!r}. It must be GBNF with a rule 'root', "
                'for example: root ::= "yes" | "no"'
            )
        return pointer

    def _allowed(self, token_id: int) -> bool:
        """Ask the grammar about one token: 100 times cheaper than masking the whole vocabulary."""
        one = lib.llama_token_data_array(
            ctypes.pointer(lib.llama_token_data(token_id, 0.0, 0.0)), ctypes.c_size_t(1), -1, False
        )
        lib.llama_sampler_apply(self._grammar, ctypes.byref(one))
        return one.data[0].logit != float("-inf")

    def _masked(self, logits: Logits) -> Logits:
        """A copy of the logits with -inf wherever the grammar forbids the token."""
        rows = np.zeros(len(logits), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        rows["id"], rows["logit"] = np.arange(len(logits)), logits
        pointer = ctypes.cast(ctypes.c_void_p(rows.ctypes.data), ctypes.POINTER(lib.llama_token_data))
        array = lib.llama_token_data_array(pointer, ctypes.c_size_t(len(logits)), -1, False)
        lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
        masked = np.full(len(logits), -np.inf, np.float32)
        left = rows[: array.size]
        masked[left["id"]] = left["logit"]
        return masked

    def close(self) -> None:
        for pointer in (self._chain, self._grammar):
            if pointer is not None:
                lib.llama_sampler_free(pointer)
        self._chain = self._grammar = None


def choice_grammar(choice: Sequence[str]) -> str:
    """GBNF that allows these texts and nothing else.

    >>> choice_grammar(["yes", "no"])
    'root ::= "yes" | "no"'
    """
    return "root ::= " + " | ".join(json.dumps(text, ensure_ascii=False) for text in choice)


def _refuse_what_only_vllm_does(params: SamplingParams) -> None:
    if params.regex is not None:
        raise RequestError(
            "llama.cpp follows no regular expressions. Give a GBNF grammar (grammar=...) or a choice, or use -e vllm."
        )
    if params.lora is not None:
        raise RequestError(
            "llama.cpp applies one LoRA adapter to all its requests: load it with `--lora PATH`. One adapter for each "
            "request is what -e vllm does (`--opt enable_lora=true`)."
        )
