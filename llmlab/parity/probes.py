"""What both engines are asked: short prompts of different kinds, so that one wrong path shows in one of them.

This file must not know any engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MAX_TOKENS = 24  # of the greedy answer to each


@dataclass(frozen=True, slots=True)
class Probe:
    """One prompt: a question for the chat template, or bare text."""

    name: str
    text: str
    is_chat: bool = False

    @property
    def prompt(self) -> dict[str, Any]:
        """As batch() takes it."""
        return {"prompt": self.text, "raw": not self.is_chat}


PROBES = (
    Probe("chat", "Why is the sky blue?", is_chat=True),
    Probe("fact", "The capital of France is"),
    Probe("code", "def fibonacci(n):\n    if n <"),
    Probe("numbers", "1234567890 + 9876543210 ="),
    Probe("Chinese", "你好，世界！今天"),
    Probe("emoji", "🚀 emoji 👨‍👩‍👧‍👦 and accents: éàü"),
)


def probes_of(prompts: Iterable[str | Probe] | None) -> tuple[Probe, ...]:
    """PROBES, or the prompts of a user: a bare text is a question for the chat template.

    >>> [probe.is_chat for probe in probes_of(["Who are you?", Probe("raw", "Once upon")])]
    [True, False]
    """
    if prompts is None:
        return PROBES
    return tuple(p if isinstance(p, Probe) else Probe(f"prompt {n}", p, is_chat=True) for n, p in enumerate(prompts, 1))
