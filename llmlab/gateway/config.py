"""Config: what a gateway serves, from where, to whom, and at which price. Keys are not in it: it names variables.

This file must not know YAML, HTTP or engines.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

PER = 1_000_000  # prices are those of a million tokens
Prefer = Literal["order", "price", "load"]
Count = Annotated[int, Meta(ge=1)]
Amount = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of the file."""


class Price(Part, frozen=True, kw_only=True):
    """Of a million tokens. Your own hardware may cost 0."""

    prompt: Amount
    output: Amount

    def of(self, num_prompt_tokens: int, num_output_tokens: int) -> float:
        """What an answer costs.

        >>> Price(prompt=0.5, output=2.0).of(1000, 200)
        0.0009
        """
        return (num_prompt_tokens * self.prompt + num_output_tokens * self.output) / PER


class Backend(Part, frozen=True, kw_only=True):
    """A server with OpenAI's API: vLLM, `llmlab serve`, llama-server, Ollama."""

    url: str
    # the environment variable that holds its key; None: it wants none
    api_key_env: str | None = None
    price: Price | None = None
    # how many requests it runs at once: its load is what it has, by this
    seats: Count = 8
    # with more than this it is full: others come first. By its own figures, where it tells them
    max_waiting: Annotated[int, Meta(ge=0)] | None = None
    max_kv_use: Annotated[float, Meta(gt=0, le=1)] | None = None
    # a longer prompt never goes there
    max_prompt_tokens: Count | None = None
    # how long nothing may come of an answer
    timeout_s: Positive = 120.0


class Rule(Part, frozen=True, kw_only=True):
    """`use` comes first for requests that meet every condition that is given."""

    use: str | Annotated[list[str], Meta(min_length=1)]
    prompt_tokens_over: Count | None = None
    prompt_tokens_up_to: Count | None = None
    # names of `keys`
    keys: list[str] | None = None

    @property
    def names(self) -> list[str]:
        return [self.use] if isinstance(self.use, str) else self.use


class Model(Part, frozen=True, kw_only=True):
    """A name that clients ask for, and who has it."""

    # backend -> what the model is called there; their order is that of `prefer: order`
    backends: Annotated[dict[str, str], Meta(min_length=1)]
    prefer: Prefer = "order"
    rules: list[Rule] = []


class Quota(Part, frozen=True, kw_only=True):
    """What one client may take. None: as much as he likes."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    cost_per_day: Amount | None = None
    max_open: Count | None = None
    # the models that he may ask; None: all
    models: list[str] | None = None


class ClientKey(Quota, frozen=True, kw_only=True):
    """`token_env`: the environment variable that holds the token of this client."""

    token_env: str


class Oidc(Quota, frozen=True, kw_only=True):
    """Signed tokens of an identity provider are let in too; the quota is that of each user."""

    issuer: str
    audience: str
    # where its public keys are; None: the issuer's own description says it
    jwks_url: str | None = None
    # the claim that names the user in the log
    name_claim: str = "sub"


class Config(Part, frozen=True, kw_only=True):
    backends: Annotated[dict[str, Backend], Meta(min_length=1)]
    models: Annotated[dict[str, Model], Meta(min_length=1)]
    keys: dict[str, ClientKey] = {}
    oidc: Oidc | None = None
    # one line of JSON for each request
    log: str = "gateway.jsonl"
    currency: str = "EUR"
    # how often backends are asked how they are
    poll_s: Positive = 1.0
    # what a prompt is measured by before a backend has counted it
    bytes_per_token: Positive = 4.0
