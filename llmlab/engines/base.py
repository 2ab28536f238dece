"""What every engine is: the protocol, how it is asked for, how it samples. Lives in the host, not in the notebook.

This file must not know any engine, process or socket.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from llmlab.engines.decode_step import DecodeStep
from llmlab.errors import EngineError, RequestError, unknown
from llmlab.trace import Capabilities, Header, Request, Step

if TYPE_CHECKING:  # numpy takes longer to import than all of llmlab: only the host needs it to load an engine
    import numpy as np
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float32]"

# What a step hands out is its own trace record, or the columns of one: one message carries the tokens and the picture.
StepOutput = Step | DecodeStep

# name -> "module:class", loaded on first use, in the host
ENGINES = {
    "llamacpp": "llmlab.engines.llamacpp:LlamaCppEngine",
    "replay": "llmlab.engines.replay:ReplayEngine",
    "simulated": "llmlab.engines.simulated:SimulatedEngine",
    "torch": "llmlab.engines.torch_paged:TorchEngine",
    "vllm": "llmlab.engines.vllm:VllmEngine",
}
# The forms an answer can be held to: at most one of these SamplingParams is given.
STRUCTURES = ("grammar", "json_schema", "regex", "choice")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How an engine is to be loaded. None means: the engine's own default."""

    engine: str
    # What the user typed; model_path is where it lies (GGUF, HF folder or trace file).
    model: str
    model_path: str
    quant: str | None = None
    dtype: str | None = None
    fingerprint: str | None = None
    chat_template: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    kv_tokens: int | None = None
    token_budget: int | None = None
    block_size: int | None = None
    lora: str | None = None
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn. The order is a contract: temperature, min-p, top-k, top-p (vLLM's).

    Raises: RequestError when a value is out of range.
    """

    temperature: float = 1.0  # 0 = greedy (lowest id among equal logits); >= 0
    top_k: int = 0  # 0 = off
    top_p: float = 1.0  # 1 = off
    min_p: float = 0.0  # 0 = off
    max_tokens: int = 256
    seed: int = 0
    # Strings that end the answer; they are not part of its text.
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    # Log probabilities of the sampled token and this many others; None = not computed.
    logprobs: int | None = None
    # At most one of STRUCTURES: a GBNF grammar with the rule "root", a JSON schema, a regular expression (vLLM), or the
    # answers to choose from.
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    # Folder of a LoRA adapter that PEFT saved, for this request alone (vLLM, torch).
    lora: str | None = None

    @property
    def structure(self) -> str | None:
        """Which of STRUCTURES the answer is held to."""
        return next((name for name in STRUCTURES if getattr(self, name) is not None), None)

    @classmethod
    def of(cls, sampling: Mapping[str, Any]) -> SamplingParams:
        """From the `sampling` of a request record.

        Raises: RequestError for a name that does not exist or a value out of range or of the wrong type.
        """
        for name in sampling:
            if name not in cls.__dataclass_fields__:
                raise RequestError(unknown("sampling parameter", name, cls.__dataclass_fields__))
        try:
            choice = sampling.get("choice")
            tuples = {
                "stop": tuple(sampling.get("stop") or ()),
                "choice": tuple(choice) if isinstance(choice, list) else choice,
            }
            return cls(**{**sampling, **tuples})
        except TypeError as error:
            raise RequestError(f"A sampling parameter has the wrong type: {dict(sampling)} ({error}).") from error

    def __post_init__(self) -> None:
        for name, ok, range_ in (
            ("temperature", 0 <= self.temperature < float("inf"), "0 (greedy) or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0, at most 1 (off)"),
            ("min_p", 0 <= self.min_p <= 1, "0 (off) to 1"),
            ("max_tokens", self.max_tokens >= 1, "1 or more"),
            ("seed", 0 <= self.seed < 2**32, "0 to 4294967295"),
            ("logprobs", self.logprobs is None or self.logprobs >= 0, "0 or more, or None"),
        ):
            if not ok:
                raise RequestError(f"{name} is {getattr(self, name)!r}; it must be {range_}.")
        if isinstance(self.stop, str) or not all(isinstance(s, str) and s for s in self.stop):
            raise RequestError(f"stop is {self.stop!r}; give a list of strings, none of them empty.")
        if self.choice is not None and not _are_texts(self.choice):
            raise RequestError(f"choice is {self.choice!r}; give a list of texts, none of them empty.")
        given = [name for name in STRUCTURES if getattr(self, name) is not None]
        if len(given) > 1:
            raise RequestError(f"{' and '.join(given)} were given together; an answer can follow only one of them.")


def checked_options(options: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Raises: EngineError for an option that this engine does not have."""
    for name in options:
        if name not in known:
            raise EngineError(unknown("option", name, known))
    return options


def check_prompt(request: Request, params: SamplingParams, max_model_len: int, *, is_in_use: bool) -> None:
    """Raises: RequestError for a prompt that has no token or leaves no room for an answer, or an id in use."""
    num_tokens = len(request.prompt_token_ids)
    if not num_tokens:
        raise RequestError("The prompt is empty: there is no token to start from. Give it at least one word.")
    if num_tokens >= max_model_len:
        raise RequestError(
            f"Prompt is {num_tokens} tokens, max_model_len is {max_model_len} and the answer needs one more. "
            f"Cut {num_tokens - max_model_len + 1} tokens, or load with --ctx {num_tokens + params.max_tokens}."
        )
    if is_in_use:
        raise RequestError(f"request id {request.request_id!r} is in use; give each request its own.")


def _are_texts(values: object) -> bool:
    return isinstance(values, tuple) and bool(values) and all(isinstance(v, str) and v for v in values)


class Sampler(Protocol):
    """Logits to a token. The engine calls draw(probs(logits, params), u) with u from the request's own generator."""

    def probs(self, logits: Floats, params: SamplingParams) -> Floats:
        """[vocab_size] -> [vocab_size], sums to 1, exactly 0 where cut; does not change logits."""

    def draw(self, probs: Floats, u: float) -> int:
        """First id whose cumulative sum exceeds u, 0 <= u < 1; never an id of probability 0."""


class Attention(Protocol):
    """Attention of one layer and sequence, after its new keys and values were written."""

    def __call__(self, q: Floats, k: Floats, v: Floats) -> Floats:
        """q, out [num_new, num_heads, head_dim]; k, v [num_computed + num_new, num_kv_heads, head_dim]; causal."""


class Engine(Protocol):
    """An engine in its host: synchronous, one thread. All its tokens leave through step()."""

    name: str
    capabilities: Capabilities
    header: Header
    epoch_s: float  # time.monotonic() of t_s = 0
    # Jinja source, and the texts of the tokens it uses; None when the model has no template.
    chat_template: str | None
    bos_token: str
    eos_token: str

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text; chat markers are recognised. The model's own BOS is added where it wants one."""

    def pieces(self, token_ids: list[int]) -> list[bytes]:
        """The bytes of each token."""

    def add_request(self, request: Request) -> None:
        """Raises: RequestError when this request can never be served; others go on."""

    def abort_request(self, request_id: str) -> None:
        """The next step reports it as finished ("abort"). Unknown ids are ignored: it may just have ended."""

    def step(self) -> StepOutput:
        """One scheduling decision and its forward pass."""

    def has_unfinished_requests(self) -> bool:
        """True while a request runs, waits, or has an end that no step has reported."""

    def interrupt(self) -> None:
        """Break off the forward pass that runs now, if any. From any thread."""

    def close(self) -> None:
        """Give everything back."""
