"""check(): what a gateway would do with a configuration, in words, and whether all that it needs is there.

Nothing is served. This file must not know routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmlab.cards import Card
from llmlab.engines import access
from llmlab.gateway.config import Config, Model, Quota
from llmlab.gateway.forwarding import Forwarder
from llmlab.gateway.oidc import Verifier
from llmlab.gateway.policy import rule_words
from llmlab.gateway.secrets import keys_of_backends, missing_variables
from llmlab.gateway.upstream import Unserved, Upstream
from llmlab.language import tr


@dataclass(frozen=True)
class Check:
    """Prints as text. `problems`: what keeps it from serving as it says."""

    cards: tuple[Card, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def __repr__(self) -> str:
        verdict = [f"✗ {problem}" for problem in self.problems] or [tr("✓ All of it is there.")]
        return "\n".join([*(f"{card!r}\n" for card in self.cards), *verdict])


def check(config: Config, environment: Mapping[str, str]) -> Check:
    """Asks every backend what it has."""
    keys = keys_of_backends(config, environment)
    upstreams = {name: Upstream(name, backend, keys[name]) for name, backend in config.backends.items()}
    problems = [
        tr("The environment has no {variable} ({of}).", variable=access.named(variable), of=of)
        for variable, of in missing_variables(config, environment).items()
    ]
    problems += asyncio.run(_ask(config, upstreams))
    cards = (_backends(upstreams), *(_model(name, model, config) for name, model in config.models.items()))
    return Check((*cards, _clients(config)), tuple(problems))


async def _ask(config: Config, upstreams: Mapping[str, Upstream]) -> list[str]:
    """What is wrong with who is asked."""
    forwarder, problems = Forwarder(config, upstreams), []
    await forwarder.open()
    try:
        for name, upstream in upstreams.items():
            try:
                upstream.models = await upstream.list_models(forwarder.session)
            except Unserved as unserved:
                problems.append(tr("{name} at {url}: {why}.", name=name, url=upstream.spec.url, why=unserved.why))
        if config.oidc is not None:
            verifier = Verifier(config.oidc)
            await verifier.fetch(forwarder.session)
            if verifier.trouble is not None:
                problems.append(tr("The keys of {issuer}: {why}.", issuer=config.oidc.issuer, why=verifier.trouble))
    finally:
        await forwarder.close()
    return problems + list(_lacking(config, upstreams))


def _lacking(config: Config, upstreams: Mapping[str, Upstream]) -> Iterator[str]:
    for model in config.models.values():
        for name, there in model.backends.items():
            found = upstreams[name].models
            # Ollama calls a model by its tag, and takes it without
            if found is not None and not {there, f"{there}:latest"} & set(found):
                yield tr("{name} has no model {model!r}. It has {found}.", name=name, model=there,
                         found=", ".join(found) or "none")  # fmt: skip


def _backends(upstreams: Mapping[str, Upstream]) -> Card:
    columns = (tr("backend"), "URL", tr("state"), tr("models"), tr("running"), tr("waiting"), tr("KV use"))
    rows = []
    for name, upstream in upstreams.items():
        standing = upstream.standing
        figures = standing.figures
        kv_use = None if figures.kv_use is None else f"{figures.kv_use:.0%}"
        state = tr("up") if standing.why_down is None else standing.why_down
        models = None if upstream.models is None else ", ".join(upstream.models)
        rows.append((name, upstream.spec.url, state, models, figures.num_running, figures.num_waiting, kv_use))
    return Card(tr("Backends"), columns, tuple(rows))


def _model(name: str, model: Model, config: Config) -> Card:
    return Card(tr("Model {name}", name=name), (), (), tuple(f"  {line}" for line in model_words(model, config)))


def model_words(model: Model, config: Config) -> Iterator[str]:
    """What is done with a request for it, one sentence a line.

    >>> from llmlab.gateway.config import Backend
    >>> config = Config(backends={"a": Backend(url="http://a")}, models={"m": Model(backends={"a": "m"})})
    >>> list(model_words(config.models["m"], config))
    ['a takes every request.']
    """
    names = ", ".join(model.backends)
    for rule in model.rules:
        yield tr("{condition}: {names} first.", condition=rule_words(rule), names=tr(", then ").join(rule.names))
    if len(model.backends) == 1:
        yield tr("{name} takes every request.", name=names)
    elif model.prefer == "order":
        yield (
            tr("Else {names}, in this order.", names=names)
            if model.rules
            else tr("{names}, in this order.", names=names)
        )
    elif model.prefer == "price":
        yield tr("Else the cheapest of {names}.", names=names)
    else:
        yield tr("Else the least busy of {names}.", names=names)
    for name in model.backends:
        backend = config.backends[name]
        if backend.max_prompt_tokens is not None:
            yield tr("{name} never gets a prompt of more than {limit:,} tokens.", name=name,
                     limit=backend.max_prompt_tokens)  # fmt: skip
        if backend.max_waiting is not None:
            yield tr("{name} comes last while more than {limit} wait there.", name=name, limit=backend.max_waiting)
        if backend.max_kv_use is not None:
            yield tr("{name} comes last while its KV cache is more than {share:.0%} full.", name=name,
                     share=backend.max_kv_use)  # fmt: skip


def _clients(config: Config) -> Card:
    rows = [(name, key.token_env, _quota_words(key)) for name, key in config.keys.items()]
    if config.oidc is not None:
        rows.append((config.oidc.issuer, "OIDC", _quota_words(config.oidc)))
    return Card(tr("Keys"), (tr("name"), tr("token in"), tr("may take")), tuple(rows))


def _quota_words(quota: Quota) -> str:
    parts = [
        (quota.requests_per_minute, tr("requests a minute")),
        (quota.tokens_per_minute, tr("tokens a minute")),
        (quota.cost_per_day, tr("of cost a day")),
        (quota.max_open, tr("answers at once")),
    ]
    found = [f"{limit:,g} {what}" for limit, what in parts if limit is not None]
    models = [tr("only {names}", names=", ".join(quota.models))] if quota.models is not None else []
    return ", ".join([*found, *models]) or tr("anything")
