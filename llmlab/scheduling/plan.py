"""StepPlan: one scheduling decision, which the engine computes.

This file must not know pools, policies or engines.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from llmlab.scheduling.contracts import BlockCopy
from llmlab.scheduling.sequence import Sequence
from llmlab.trace import Phase, ScheduledRequest


class Share(NamedTuple):
    """What one sequence computes in a step: the next num_tokens after the first num_computed_tokens."""

    seq: Sequence
    num_tokens: int
    num_computed_tokens: int
    phase: Phase

    @property
    def samples(self) -> bool:
        """True when the last token of the sequence is computed: the step yields a new one."""
        return self.num_computed_tokens + self.num_tokens == len(self.seq.token_ids)


@dataclass(slots=True)
class StepPlan:
    """One scheduling decision. The KV room for it is already taken."""

    step: int
    shares: list[Share] = field(default_factory=list)
    copies: list[BlockCopy] = field(default_factory=list)
    preempted: list[str] = field(default_factory=list)
    prefix_hits: dict[str, int] = field(default_factory=dict)
    forked: dict[str, str] = field(default_factory=dict)  # child -> parent, once the plan is committed

    @property
    def num_tokens(self) -> int:
        return sum(share.num_tokens for share in self.shares)

    def records(self, drafts: Mapping[int, Collection[int]] = MappingProxyType({})) -> tuple[ScheduledRequest, ...]:
        """The shares as trace records; to be made before sampling, since they count the tokens before the step.

        `drafts`: index of a share -> draft tokens that were looked at beside it.
        """
        return tuple(
            [
                ScheduledRequest(
                    request_id=(seq := share.seq).request_id,
                    phase=share.phase,
                    num_tokens=share.num_tokens + (num_drafts := len(drafts.get(i, ()))),
                    num_computed_tokens=share.num_computed_tokens,
                    num_prompt_tokens=seq.num_prompt_tokens,
                    num_output_tokens=len(seq.token_ids) - seq.num_prompt_tokens,
                    num_draft_tokens=num_drafts,
                )
                for i, share in enumerate(self.shares)
            ]
        )
