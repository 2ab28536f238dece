"""DecodeStep: a step in which each request decoded one token and nothing else happened, as columns.

Most steps of a busy GPU are of this kind, and have 256 requests. As columns they cost the engine's process a tenth of
what 512 records do; the notebook's process makes the Step of them. This file must not know any engine.
"""

from __future__ import annotations

import msgspec

from llmlab.trace import BlockDelta, FinishReason, ScheduledRequest, Step, Token


class DecodeStep(msgspec.Struct, array_like=True, gc=False):
    """Field names are those of Step and ScheduledRequest; each list has one value for each of `request_ids`.

    Where nothing is traced but tokens, the counts are empty lists.
    """

    step: int
    t_s: float
    schedule_s: float
    forward_s: float
    update_s: float
    token_budget: int | None
    waiting: tuple[str, ...]
    num_waiting: int
    num_running: int
    kv: BlockDelta | None
    request_ids: list[str]
    num_computed_tokens: list[int]
    num_prompt_tokens: list[int]
    num_output_tokens: list[int]
    token_ids: list[int]
    texts: list[str]

    @property
    def finished(self) -> dict[str, FinishReason]:
        """Nobody ends in such a step."""
        return {}

    def record(self) -> Step:
        is_traced = bool(self.num_computed_tokens)
        counts = (self.num_computed_tokens, self.num_prompt_tokens, self.num_output_tokens)
        shares = zip(self.request_ids, *counts, strict=True) if is_traced else ()
        texts = self.texts or [""] * len(self.token_ids)
        return Step(
            step=self.step,
            t_s=self.t_s,
            schedule_s=self.schedule_s,
            forward_s=self.forward_s,
            update_s=self.update_s,
            scheduled=tuple(
                [
                    ScheduledRequest(
                        request_id=request_id,
                        phase="decode",
                        num_tokens=1,
                        num_computed_tokens=num_computed,
                        num_prompt_tokens=num_prompt,
                        num_output_tokens=num_output,
                    )
                    for request_id, num_computed, num_prompt, num_output in shares
                ]
            ),
            num_scheduled_tokens=len(self.request_ids) if is_traced else 0,
            token_budget=self.token_budget,
            waiting=self.waiting,
            num_waiting=self.num_waiting,
            num_running=self.num_running,
            tokens=tuple(
                [
                    Token(request_id=request_id, token_id=token_id, text=text)
                    for request_id, token_id, text in zip(self.request_ids, self.token_ids, texts, strict=True)
                ]
            ),
            kv=self.kv,
        )
