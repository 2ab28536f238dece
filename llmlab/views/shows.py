"""kv_cache(), timeline(), watch(), tokens(), sampler(): from whatever somebody has in hand to a view of it.

This file must not know how anything is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from llmlab.engines.handle import EngineHandle
from llmlab.engines.result import Result
from llmlab.engines.run import Run
from llmlab.errors import LlmlabError
from llmlab.trace import Trace
from llmlab.views.live import live_of
from llmlab.views.story_view import StoryView

if TYPE_CHECKING:
    from llmlab.views.tokens_view import SamplerView, TokensView

Subject: TypeAlias = Run | Trace | Result | EngineHandle | str | Path


def kv_cache(subject: Subject, *, presentation: bool = False) -> StoryView:
    """Who holds which block or cell of the KV cache, step by step.

    `subject`: a Run (live while it goes on), a Trace, the path of a trace file, a Result, or an EngineHandle (its last
    run, or all that it did; of a traced server, all that it does from now on). `presentation`: large, for a projector
    (key z).

    Raises: LlmlabError for anything else; TraceError for a file that is no trace.
    """
    return _view(subject, ["kv"], "KV cache", presentation, "Arrivals")


def timeline(subject: Subject, *, presentation: bool = False) -> StoryView:
    """What each request did in each step: prefill, decode, wait. Arguments: see kv_cache()."""
    return _view(subject, ["timeline"], "Batching timeline", presentation, "Arrivals")


def watch(subject: Subject, *, presentation: bool = False) -> StoryView:
    """The KV cache and the timeline, with one cursor. Arguments: see kv_cache()."""
    return _view(subject, ["kv", "timeline"], "", presentation)


def tokens(subject: Result | Run | EngineHandle, *, presentation: bool = False) -> TokensView:
    """One answer token by token: how likely each was, what else was likely, how long it took.

    `subject`: a Result; of a Run or an EngineHandle the last result. Ask with `logprobs=8` to see the other tokens.
    `presentation`: see kv_cache().

    Raises: LlmlabError when there is no answer.
    """
    from llmlab.views.tokens_view import TokensView

    result: Result | None
    if isinstance(subject, Run):
        result = subject.results[-1] if subject.request_ids else None
    else:
        result = subject.last if isinstance(subject, EngineHandle) else subject
    if not isinstance(result, Result):
        raise LlmlabError(f"tokens() shows an answer, not {_kind(subject)}. Pass a Result: `r = %llm Hello`, then `r`.")
    return TokensView(result, presentation=presentation)


def sampler(
    engine: EngineHandle,
    prompt: str | Iterable[int] | Result,
    *,
    at: int = 0,
    presentation: bool = False,
    **sampling: Any,
) -> SamplerView:
    """A playground on a real next-token distribution: sliders show what temperature, top-k, top-p and min-p would keep.

    `prompt`: a text as it is (no chat template), token ids, or an answer: then the distribution before its token `at`.
    `sampling`: where the sliders stand at first, e.g. `temperature=1.2, top_p=0.9`. `presentation`: see kv_cache(). The
    engine must be idle.

    Raises: RequestError for a sampling value out of range, or when the answer is shorter than `at`.
    """
    from llmlab.views.tokens import sampler_data
    from llmlab.views.tokens_view import SamplerView

    return SamplerView(sampler_data(engine, prompt, at=at, **sampling), presentation=presentation)


def _view(
    subject: Subject, parts: list[str], title: str, presentation: bool, unseen_title: str | None = None
) -> StoryView:
    """`unseen_title`: of an engine whose steps are not seen, if another."""
    if isinstance(subject, EngineHandle):
        subject = subject.shown
    if isinstance(subject, Result):
        subject = subject.trace
    if isinstance(subject, str | Path):
        subject = Trace.load(subject)
    if isinstance(subject, Run):
        live = live_of(subject)
        title = title if subject.header.capabilities.steps else unseen_title or title
        title = title or subject.title or _count(len(subject.request_ids))
        return StoryView(live, parts, title, live.id, presentation=presentation)
    if isinstance(subject, Trace):
        title = title if subject.header.capabilities.steps else unseen_title or title
        title = title or _count(len(subject.request_records))
        return StoryView.of_trace(subject, parts, title, _id_of(subject), presentation=presentation)
    raise LlmlabError(
        f"Nothing to draw in {_kind(subject)}. Pass a run, a trace, the path of a trace file, a result or an engine."
    )


def _count(num_requests: int) -> str:
    return f"Run of {num_requests} request{'' if num_requests == 1 else 's'}"


def _id_of(trace: Trace) -> str:
    """The same for the same trace: its views share a cursor."""
    steps = trace.step_records
    span = f"{steps[0].step}-{steps[-1].step}-{steps[-1].t_s}" if steps else "empty"
    return f"{trace.header.started_at}-{len(trace.request_records)}-{span}"


def _kind(subject: object) -> str:
    return f"an object of type {type(subject).__name__}"
