"""llmlab: see what an inference engine really does, from a notebook. Every name below is loaded on first use.

This file must not import anything but the standard library: `import llmlab` costs a few milliseconds. What a name needs
(an engine, pandas, ...) comes when the name is used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

# public name -> the module that has it, and what it is called there (a whole module: no colon)
_EXPORTS = {
    "load": "llmlab.engines.loading:load",
    "current": "llmlab.engines.registry:current",
    "handles": "llmlab.engines.registry:handles",
    "ps": "llmlab.engines.registry:ps",
    "unload": "llmlab.engines.registry:unload",
    "use": "llmlab.engines.registry:use",
    "parity": "llmlab.parity:parity",
    "first_divergence": "llmlab.parity:first_divergence",
    "compare": "llmlab.compare:compare",
    "Comparison": "llmlab.compare:Comparison",
    "side_by_side": "llmlab.views.compare:side_by_side",
    "bench": "llmlab.bench:bench",
    "perplexity": "llmlab.quality:perplexity",
    "exact_answers": "llmlab.quality:exact_answers",
    "report": "llmlab.report:report",
    "serve": "llmlab.serve:serve",
    "classroom": "llmlab.classroom.room:classroom",
    "connect": "llmlab.remote:connect",
    "gateway": "llmlab.gateway:gateway",
    "panel": "llmlab.views.panel:panel",
    "kv_cache": "llmlab.views.shows:kv_cache",
    "timeline": "llmlab.views.shows:timeline",
    "watch": "llmlab.views.shows:watch",
    "what_if": "llmlab.engines.what_if:what_if",
    "before_after": "llmlab.views.before_after:before_after",
    "tokens": "llmlab.views.shows:tokens",
    "sampler": "llmlab.views.shows:sampler",
    "Trace": "llmlab.trace:Trace",
    "recorded": "llmlab.trace.recorded:recorded",
    "labs": "llmlab.labs",
    "models": "llmlab.models",
    "metrics": "llmlab.metrics",
    "fits": "llmlab.models:fits",
    "doctor": "llmlab.doctor:doctor",
    "LlmlabError": "llmlab.errors:LlmlabError",
    "TraceError": "llmlab.errors:TraceError",
    "ModelError": "llmlab.errors:ModelError",
    "DoesNotFit": "llmlab.errors:DoesNotFit",
    "EngineError": "llmlab.errors:EngineError",
    "EngineDied": "llmlab.errors:EngineDied",
    "RequestError": "llmlab.errors:RequestError",
    "load_ipython_extension": "llmlab.magics:load_ipython_extension",
    "unload_ipython_extension": "llmlab.magics:unload_ipython_extension",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'llmlab' has no attribute {name!r}")
    if name == "load":
        _prepare_pictures()
    module_name, _, attribute = _EXPORTS[name].partition(":")
    module = import_module(module_name)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def _prepare_pictures() -> None:
    """In a notebook: import what the first view needs while an engine loads, in another process."""
    if "ipykernel" in sys.modules:
        from threading import Thread

        for package in ("anywidget", "PIL.ImageFont"):
            Thread(target=import_module, args=(package,), name=f"llmlab imports {package}", daemon=True).start()


def public(name: str) -> Any:
    """A public name by its text: for what may not import the part that has it, such as Trace.replay."""
    return getattr(sys.modules[__name__], name)


def __dir__() -> list[str]:
    return sorted({"__version__", *_EXPORTS})


class _Facade(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # Importing the module llmlab.doctor binds its name here, and would hide the function doctor() of the same name.
        if ":" in _EXPORTS.get(name, "") and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Facade
