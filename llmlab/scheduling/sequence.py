"""Sequence: the token list that the scheduler moves. The only record of this package that changes."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmlab.scheduling.contracts import RequestView
from llmlab.trace import Request


@dataclass(slots=True, eq=False)
class Sequence:
    """One request on its way through the engine. `token_ids` is prompt plus output."""

    request_id: str
    token_ids: list[int]
    num_prompt_tokens: int
    arrival_step: int = 0
    user: str = ""
    priority: int = 0
    # Sequences share a cached prefix only within one salt.
    salt: str = ""
    # The sequence with the same prompt whose blocks it is to share from the end of that prompt on; "" = none.
    parent_id: str = ""
    # Tokens whose KV exists now.
    num_computed_tokens: int = 0
    num_preemptions: int = 0
    # A waiting sequence does not change: its view is made once.
    _view: RequestView | None = field(default=None, repr=False)

    @classmethod
    def of(cls, request: Request) -> Sequence:
        """A request at its beginning."""
        ids = list(request.prompt_token_ids)
        return cls(request.request_id, ids, len(ids), user=request.user, priority=request.priority, salt=request.salt)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        return len(self.token_ids) - self.num_computed_tokens

    def view(self) -> RequestView:
        """What a policy may see of it."""
        seen = self._view
        if (
            seen is None
            or seen.num_computed_tokens != self.num_computed_tokens
            or seen.num_prompt_tokens + seen.num_output_tokens != len(self.token_ids)
            or seen.num_preemptions != self.num_preemptions
        ):
            seen = self._view = RequestView(
                self.request_id,
                self.user,
                self.arrival_step,
                self.priority,
                self.num_prompt_tokens,
                self.num_output_tokens,
                self.num_computed_tokens,
                self.num_preemptions,
            )
        return seen
