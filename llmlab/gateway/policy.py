"""decide(): which backend gets a request, and why, in words. Pure: the same standing gives the same decision.

This file must not know HTTP, clocks or tokens of clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmlab.gateway.config import Backend, Model, Rule
from llmlab.gateway.figures import Figures
from llmlab.language import tr

# how long an answer is taken to be where the client sets no limit
USUAL_OUTPUT_TOKENS = 256
UNKNOWN = Figures()


@dataclass(frozen=True, slots=True)
class Ask:
    """What a decision needs to know of a request."""

    model: str
    num_prompt_tokens: int
    # False: they were sent as token ids; True: measured by the bytes of the text
    is_estimate: bool = True
    max_tokens: int | None = None
    key: str | None = None

    @property
    def length(self) -> str:
        return f"prompt of {'about ' if self.is_estimate else ''}{self.num_prompt_tokens:,} tokens"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a backend is at this moment."""

    # why it cannot be asked; None: it can
    why_down: str | None = None
    # True: it was asked already, for this request
    was_tried: bool = False
    # answers that this gateway waits for
    num_open: int = 0
    figures: Figures = UNKNOWN

    @property
    def num_requests(self) -> int:
        """What it has to do, as far as known: its figures are a moment old, and others may ask it too."""
        told = (self.figures.num_running or 0) + (self.figures.num_waiting or 0)
        return max(told, self.num_open)


@dataclass(frozen=True, slots=True)
class Decision:
    """`backend`: None when nobody can take it. `is_too_long`: and never could."""

    backend: str | None
    reason: str
    is_too_long: bool = False


def decide(
    ask: Ask, model: Model, backends: Mapping[str, Backend], standings: Mapping[str, Standing], currency: str = "EUR"
) -> Decision:
    """Rules first, then what the model prefers; who is down is left out, who is full comes last.

    >>> model = Model(backends={"laptop": "m", "main": "M"}, rules=[Rule(prompt_tokens_over=2048, use="main")])
    >>> both = {"laptop": Backend(url="http://a"), "main": Backend(url="http://b")}
    >>> decide(Ask("m", 3000), model, both, {"laptop": Standing(), "main": Standing()}).reason
    'prompt of about 3,000 tokens > 2,048: main'
    """
    too_long = {
        name: f"{name} takes prompts of {limit:,} tokens at most"
        for name in model.backends
        if (limit := backends[name].max_prompt_tokens) is not None and ask.num_prompt_tokens > limit
    }
    able = [name for name in model.backends if name not in too_long]
    rule = next((rule for rule in model.rules if _applies(rule, ask)), None)
    by_rule = [name for name in (rule.names if rule else ()) if name in able]
    rest = sorted(
        (name for name in able if name not in by_rule), key=lambda name: _rank(name, ask, model, backends, standings)
    )
    wanted = [*by_rule, *rest]
    down = {name: _why_down(name, standings[name]) for name in wanted if standings[name].why_down is not None}
    full = {name: f"{name} {why}" for name in wanted if (why := _why_full(backends[name], standings[name])) is not None}
    up = [name for name in wanted if name not in down]
    chosen = next((name for name in up if name not in full), up[0] if up else None)
    if chosen is None:
        return Decision(None, "; ".join({**too_long, **down}.values()), is_too_long=not able)
    passed = [(down | full)[name] for name in wanted[: wanted.index(chosen)] if name in down or name in full]
    if chosen in full:
        passed += [full[chosen], "and nobody is free"]
    why = (
        _words(rule, ask)
        if rule and chosen in by_rule
        else _preference(chosen, ask, model, backends, standings, currency)
    )
    return Decision(chosen, "; ".join([*too_long.values(), *passed, f"{why}: {chosen}"]))


def rule_words(rule: Rule) -> str:
    """The condition of a rule, for people.

    >>> rule_words(Rule(use="a", prompt_tokens_over=2048, keys=["ann"]))
    'prompt of more than 2,048 tokens, key ann'
    """
    over, up_to = rule.prompt_tokens_over, rule.prompt_tokens_up_to
    parts = [
        tr("prompt of more than {limit:,} tokens", limit=over) if over is not None else "",
        tr("prompt of up to {limit:,} tokens", limit=up_to) if up_to is not None else "",
        tr("key {names}", names=tr(" or ").join(rule.keys)) if rule.keys else "",
    ]
    return ", ".join(part for part in parts if part)


def _applies(rule: Rule, ask: Ask) -> bool:
    if rule.prompt_tokens_over is not None and ask.num_prompt_tokens <= rule.prompt_tokens_over:
        return False
    if rule.prompt_tokens_up_to is not None and ask.num_prompt_tokens > rule.prompt_tokens_up_to:
        return False
    return rule.keys is None or ask.key in rule.keys


def _words(rule: Rule, ask: Ask) -> str:
    """What of this request met the rule."""
    over, up_to = rule.prompt_tokens_over, rule.prompt_tokens_up_to
    length = f"{f' > {over:,}' if over is not None else ''}{f' ≤ {up_to:,}' if up_to is not None else ''}"
    parts = [f"{ask.length}{length}" if length else "", f"key {ask.key}" if rule.keys else ""]
    return ", ".join(part for part in parts if part)


def _rank(
    name: str, ask: Ask, model: Model, backends: Mapping[str, Backend], standings: Mapping[str, Standing]
) -> float:
    """What `prefer` sorts by; equal ones keep the order of the file."""
    if model.prefer == "price":
        return _price(backends[name], ask)
    return _load(backends[name], standings[name]) if model.prefer == "load" else 0.0


def _price(backend: Backend, ask: Ask) -> float:
    assert backend.price is not None  # the configuration was checked for it
    return backend.price.of(ask.num_prompt_tokens, ask.max_tokens or USUAL_OUTPUT_TOKENS)


def _load(backend: Backend, standing: Standing) -> float:
    return standing.num_requests / backend.seats


def _why_down(name: str, standing: Standing) -> str:
    return f"{name} {'did not take it' if standing.was_tried else 'is down'} ({standing.why_down})"


def _why_full(backend: Backend, standing: Standing) -> str | None:
    waiting, kv_use = standing.figures.num_waiting, standing.figures.kv_use
    if backend.max_waiting is not None and waiting is not None and waiting > backend.max_waiting:
        return f"has {waiting} waiting > {backend.max_waiting}"
    if backend.max_kv_use is not None and kv_use is not None and kv_use > backend.max_kv_use:
        return f"has its KV cache {kv_use:.0%} full > {backend.max_kv_use:.0%}"
    return None


def _preference(
    chosen: str,
    ask: Ask,
    model: Model,
    backends: Mapping[str, Backend],
    standings: Mapping[str, Standing],
    currency: str,
) -> str:
    if len(model.backends) == 1:
        return "the only one"
    if model.prefer == "price":
        return f"cheapest, about {_price(backends[chosen], ask):.2g} {currency}"
    if model.prefer == "load":
        return f"least busy, {standings[chosen].num_requests} requests on {backends[chosen].seats} seats"
    return "next in order" if chosen != next(iter(model.backends)) else "first in order"
