"""EngineHandle: what a notebook holds of a loaded engine. Ask, stream, batch, drive, look, unload.

This file must not know processes, sockets or any engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from llmlab.engines import messages as wire
from llmlab.engines.base import EngineConfig, Floats
from llmlab.engines.connection import Connection
from llmlab.engines.prompts import PromptLike, PromptMaker, entry_of
from llmlab.engines.recorder import News
from llmlab.engines.result import Result
from llmlab.engines.run import Run, Stream
from llmlab.engines.unloaded import Unloaded, rss_bytes
from llmlab.errors import RequestError
from llmlab.trace import Capabilities, Header, Step, Trace

if TYPE_CHECKING:  # it brings numpy along
    from llmlab.models.tokenizer_files import ChatFormat

CLOSE_GRACE_S = 3.0
# An engine confirms a stop after the forward pass that runs. One that is paused with other requests, or hangs, never
# does, and the notebook goes on all the same.
STOP_S, PAUSED_STOP_S = 2.0, 0.2
RunT = TypeVar("RunT", bound=Run)


class EngineHandle:
    """A loaded engine. Made by llmlab.load(); `with llmlab.load(...) as eng:` unloads it at the end."""

    # It runs elsewhere, and has no tokenizer here.
    is_remote = False

    def __init__(self, name: str, config: EngineConfig, connection: Connection, ready: wire.Ready) -> None:
        self.name, self.config = name, config
        self.header: Header = ready.header
        self._epoch_s = ready.epoch_s
        self.notes: tuple[str, ...] = ready.notes
        self.load_s = ready.load_s
        self._connection = connection
        self._prompts = PromptMaker(config.seed)
        self._last: Run | None = None
        self.is_paused = self.is_unloaded = False

    # ---- what it is

    @property
    def engine(self) -> str:
        return self.config.engine

    @property
    def model(self) -> str:
        return self.config.model

    @property
    def quant(self) -> str | None:
        return self.header.quant

    @property
    def capabilities(self) -> Capabilities:
        return self.header.capabilities

    @property
    def pid(self) -> int:
        """The process the engine lives in."""
        return self._connection.link.pid

    @property
    def epoch_s(self) -> float:
        """time.monotonic() of t_s = 0 in its trace."""
        return self._epoch_s

    @property
    def alive(self) -> bool:
        return self.death is None

    @property
    def death(self) -> str | None:
        """How its engine ended, in sentences; None while it lives."""
        return self._connection.death

    @property
    def num_open_requests(self) -> int:
        """Requests that have not ended."""
        return self._connection.num_open

    def require_idle(self) -> None:
        """Raises: RequestError while it is paused or has requests of its own: nothing could be measured on it."""
        if self.is_paused:
            raise RequestError(f"{self.name} is paused. Let it run first: `%llm resume`.")
        if self.num_open_requests:
            raise RequestError(f"{self.name} has {self.num_open_requests} requests of its own. Wait for them.")

    # ---- asking

    def generate(self, prompt: PromptLike, *, timeout: float | None = None, **options: Any) -> Result:
        """One answer, when it is complete; greedy, at most 256 tokens, unless the options say otherwise.

        `prompt`: a text, a conversation, or token ids. Options: system, raw (no chat template), the fields of
        SamplingParams, priority, user, salt. After `timeout` seconds the answer is what has come, "interrupted".

        >>> eng.generate("Why is the sky blue?", max_tokens=64, temperature=0.7).text    # doctest: +SKIP

        Raises: RequestError when it cannot be served as asked; EngineDied, with the partial result in `.results`.
        Ctrl-C stops it on the engine; what has come is in `last`.
        """
        run = self._new_run(Run, [prompt], None, _of_one(options))
        return run.wait(timeout)[0]

    def stream(self, prompt: PromptLike, **options: Any) -> Stream:
        """One answer, token by token: iterate for TokenEvents; `.result` is the answer so far. Options: see generate().

        Ending the loop early ends the answer.
        """
        return self._new_run(Stream, [prompt], None, _of_one(options))

    def batch(self, prompts: Iterable[PromptLike], *, arrivals: Sequence[float] | None = None, **options: Any) -> Run:
        """Many prompts at once; returns at once. Options: see generate(). Request i has seed + i.

        `n`: answers to each prompt, one after the other in the results: as if it were asked n times; the torch engine
        computes it once, and they share its blocks.

        `arrivals`: seconds from now at which each request is sent. A prompt may be a dict with the key "prompt" and
        what this one wants other than the rest: {"prompt": "Hi", "max_tokens": 8}.
        """
        return self._new_run(Run, prompts, arrivals, options)

    def answer(self, prompts: Iterable[PromptLike], on_news: Callable[[], None], **options: Any) -> Run:
        """batch() for a server: `last` stays what the notebook asked; `on_news` is called after anything that comes.

        A prompt may have a "request_id", under which it is in the trace; has_request() says which ones are taken.
        """
        made = self._prompts.make(prompts, **options)
        run = Run(
            map(entry_of, made), self.header, abort=self._abort, trace=self._trace_of, engine=self, on_news=on_news
        )
        self._connection.submit(run, made)
        return run

    def has_request(self, request_id: str) -> bool:
        """A request of that id is open, or in the trace."""
        return self._connection.has_request(request_id)

    def replay(self) -> Run:
        """Play a loaded trace from its beginning, all requests as they came. Only the engine "replay" can.

        Raises: RequestError while it is played already; EngineError on any other engine.
        """
        now_s = time.monotonic()
        requests = self._connection.call("begin_replay")
        return self._submit(Run, [wire.Prompt(sent_s=now_s + r.pop("offset_s"), **r) for r in requests])

    @property
    def last(self) -> Result | None:
        """The last result, also of a run that was stopped."""
        return self._last.results[-1] if self._last is not None and self._last.request_ids else None

    @property
    def last_run(self) -> Run | None:
        return self._last

    def _new_run(
        self, kind: type[RunT], prompts: Iterable[PromptLike], arrivals: Sequence[float] | None, options: dict[str, Any]
    ) -> RunT:
        return self._submit(kind, self._prompts.make(prompts, arrivals, **options))

    def _submit(self, kind: type[RunT], prompts: list[wire.Prompt]) -> RunT:
        run = kind(map(entry_of, prompts), self.header, abort=self._abort, trace=self._trace_of, engine=self)
        try:
            self._last = run
            self._connection.submit(run, prompts)
        except KeyboardInterrupt:  # nobody would ever get hold of this run
            run.stop()
            raise
        return run

    def _abort(self, request_ids: Sequence[str]) -> float:
        """Stop these on the engine; how long to wait until it says that they have ended, in seconds."""
        self._connection.abort(request_ids)
        if self.is_unloaded:
            return 0.0
        return PAUSED_STOP_S if self.is_paused else STOP_S

    # ---- what the engine knows

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text as the engine sees it, chat markers included, BOS where the model wants one."""
        return list(self._connection.call("tokenize", text=text))

    def pieces(self, token_ids: Iterable[int]) -> list[bytes]:
        """The bytes of each token."""
        return list(self._connection.call("pieces", token_ids=[int(i) for i in token_ids]))

    def detokenize(self, token_ids: Iterable[int]) -> str:
        """The text of these tokens; what is no whole character becomes U+FFFD."""
        return b"".join(self.pieces(token_ids)).decode(errors="replace")

    def chat_format(self) -> ChatFormat:
        """The chat template that this engine renders (None: there is none), and the texts of its BOS and EOS tokens."""
        from llmlab.models.tokenizer_files import ChatFormat

        return ChatFormat(**self._connection.call("chat_format"))

    def logits(self, prompt: str | Iterable[int]) -> Floats:
        """Logits at every position, [num_tokens, num_vocab], up to one constant a row. The engine must be idle."""
        import numpy as np

        token_ids = self._ids(prompt)
        return np.asarray(self._connection.call("logits", token_ids=token_ids), dtype=np.float32)

    def embed(self, prompt: str | Iterable[int]) -> Floats:
        """The vector of a text, [hidden_size], of length 1 (llama.cpp). Requests may run meanwhile."""
        import numpy as np

        return np.asarray(self._connection.call("embed", token_ids=self._ids(prompt)), dtype=np.float32)

    def inside(self, prompt: str | Iterable[int], *, layers: Iterable[int] | None = None) -> dict[str, Any]:
        """Attention weights, hidden states and logit lens of a text (torch engine; torch_hooks.inside() says more)."""
        token_ids = self._ids(prompt)
        return _by_layer(self._connection.call("inside", token_ids=token_ids, layers=_chosen(layers)))

    @contextmanager
    def probe(self, *, layers: Iterable[int] | None = None) -> Iterator[list[dict[str, dict[str, Any]]]]:
        """What real steps compute: attention weights and hidden states, as torch_hooks.Probe has them (torch engine).

        The list is filled at the end, one dict for each forward pass: request_id -> {"attention": ..., "hidden": ...}.
        """
        self._connection.call("begin_probe", layers=_chosen(layers))
        steps: list[dict[str, dict[str, Any]]] = []
        try:
            yield steps
        finally:
            steps += [
                {request_id: _by_layer(found) for request_id, found in step.items()}
                for step in self._connection.call("end_probe")
            ]

    def _ids(self, prompt: str | Iterable[int]) -> list[int]:
        return self.tokenize(prompt) if isinstance(prompt, str) else [int(i) for i in prompt]

    def memory(self) -> dict[str, int]:
        """What the engine takes now, in bytes: `rss` of its process, measured; its parts, as it reports them."""
        return dict(self._connection.call("memory"))

    def logs(self, n: int = 40) -> str:
        """The last n lines that the engine wrote, also after it died."""
        return "\n".join(self._connection.link.log_lines(n))

    @property
    def trace(self) -> Trace:
        """Everything since the engine was loaded; of a long session, what still is in memory."""
        recorder = self._connection.recorder
        return recorder.slice(own=recorder.request_ids)

    def _trace_of(self, run: Run) -> Trace:
        return self.trace_of((run,))

    def trace_of(self, runs: Collection[Run]) -> Trace:
        """What it did from the arrival of the first of these runs to the end of the last."""
        recorder, firsts = self._connection.recorder, [r.first_step for r in runs if r.first_step is not None]
        ends = [r.end_step if r.done and not r.died and r.end_step is not None else recorder.num_steps for r in runs]
        ids = [request_id for run in runs for request_id in run.request_ids]
        return recorder.slice(min(firsts, default=recorder.num_steps), max(ends, default=None), ids)

    @property
    def shown(self) -> Run | Trace:
        """What a view of it shows: its last run, or all that it did."""
        return self.last_run or self.trace

    def note_of(self, run: Run) -> str:
        """What a view of one of its runs says beside it; "" for nothing."""
        return ""

    def is_cut(self, run: Run) -> bool:
        """The trace of one of its runs, which has ended, breaks off before that end."""
        return False

    def opening_of(self, run: Run) -> tuple[Trace, int]:
        """Run.opening() of one of its runs."""
        recorder = self._connection.recorder
        return recorder.opening(recorder.num_steps if run.first_step is None else run.first_step, run.request_ids)

    def news_of(self, run: Run, number: int, known: Collection[str] = ()) -> News:
        """Run.steps_since() of one of its runs."""
        if run.first_step is None:
            return News([], [], number)
        end = run.end_step if run.done and not run.died else None
        return self._connection.recorder.since(number, end, run.request_ids, known)

    def opening(self, own: Collection[str] = ()) -> tuple[Trace, int]:
        """The trace before the next step, with the KV cache as it is now; and the number of that step.

        Of requests, those that hold some of it, and those of `own`.
        """
        recorder = self._connection.recorder
        return recorder.opening(recorder.num_steps, own)

    def steps_since(self, number: int, known: Collection[str] = ()) -> News:
        """What came from step `number` on, whoever asked for it. `known`: see Run.steps_since()."""
        return self._connection.recorder.since(number, known=known)

    @property
    def last_step(self) -> Step | None:
        """The newest step that came; None before the first."""
        recorder = self._connection.recorder
        return next(iter(recorder.since(recorder.num_steps - 1).steps), None)

    # ---- driving by hand

    def pause(self) -> None:
        """Hold the engine after its current step. Requests still come in; none goes on."""
        self.is_paused = True
        self._connection.drive(wire.Drive(paused=True))

    def step(self, n: int = 1, timeout: float = 60.0) -> tuple[Step, ...]:
        """Let the engine take n steps and pause; the steps, fewer when there was nothing left to do."""
        recorder, self.is_paused = self._connection.recorder, True
        self._connection.drive(wire.Drive(paused=True))
        self._connection.call("memory")  # the step that ran when it was paused has come now
        first = recorder.num_steps
        self._connection.drive(wire.Drive(steps=n))
        self._connection.bell.wait(
            lambda: recorder.num_steps >= first + n or not self.num_open_requests or not self.alive, timeout
        )
        return recorder.slice(first).step_records[:n]

    def begin_step(self, n: int = 1) -> None:
        """step() that returns at once: n steps, then a pause."""
        self.is_paused = True
        self._connection.drive(wire.Drive(paused=True, steps=n))

    def resume(self) -> None:
        """Run freely again."""
        self.is_paused = False
        self._connection.drive(wire.Drive(paused=False))

    def slow(self, seconds: float) -> None:
        """Slow motion: at least this many seconds between two steps; 0 = full speed."""
        self._connection.drive(wire.Drive(slow_s=float(seconds)))

    # ---- the end

    def unload(self) -> Unloaded:
        """End the engine and give its memory back. Results and traces stay. A second call does nothing new."""
        import psutil

        from llmlab.models.memory import free_gpu_bytes  # the package brings numpy along

        link, started = self._connection.link, time.monotonic()
        before, available, gpu_free = rss_bytes(link.pid), psutil.virtual_memory().available, free_gpu_bytes()
        self.close(CLOSE_GRACE_S)
        ended_in_s = time.monotonic() - started
        return Unloaded(
            name=self.name,
            rss_before_bytes=before,
            rss_after_bytes=0 if link.is_process else rss_bytes(link.pid),
            available_before_bytes=available,
            available_after_bytes=psutil.virtual_memory().available,
            ended_in_s=ended_in_s,
            gpu_free_before_bytes=gpu_free,
            gpu_free_after_bytes=None if gpu_free is None else free_gpu_bytes(),
        )

    def close(self, grace_s: float) -> None:
        """unload() without figures: its process has grace_s to end by itself."""
        self.is_unloaded = True
        self._connection.close(grace_s)

    def __enter__(self) -> EngineHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.unload()

    def __repr__(self) -> str:
        header = self.header
        what = " ".join(filter(None, [header.model or self.model, header.quant]))
        if not self.alive:
            return f"EngineHandle({self.name!r}: {what} on {self.engine}, not loaded any more)"
        return f"EngineHandle({self.name!r}: {what} on {self.engine} {header.engine_version}, pid {self.pid})"


def _chosen(layers: Iterable[int] | None) -> list[int] | None:
    return None if layers is None else [int(layer) for layer in layers]


def _by_layer(found: dict[str, Any]) -> dict[str, Any]:
    """Keys of a message are text; those of attention weights are layers."""
    return {**found, "attention": {int(layer): weights for layer, weights in found["attention"].items()}}


def _of_one(options: dict[str, Any]) -> dict[str, Any]:
    """Raises: RequestError when several answers are asked for where one comes."""
    if options.get("n", 1) != 1:
        raise RequestError(f"This gives one answer, n is {options['n']!r}. Use batch([prompt], n={options['n']!r}).")
    return options
