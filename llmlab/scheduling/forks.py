"""Forks: sequences that wait for the prompt of another one, to share its blocks (n > 1).

This file must not know pools, policies or steps.
"""

from __future__ import annotations

from collections.abc import Collection

from llmlab.scheduling.sequence import Sequence


class Forks:
    """Children by parent, both in order of arrival."""

    def __init__(self) -> None:
        self._children: dict[str, dict[str, Sequence]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._children.values()))

    def __contains__(self, request_id: str) -> bool:
        return any(request_id in children for children in self._children.values())

    @property
    def parents(self) -> Collection[str]:
        """Who has children here."""
        return self._children.keys()

    @property
    def request_ids(self) -> list[str]:
        return [request_id for children in self._children.values() for request_id in children]

    def wait(self, child: Sequence) -> None:
        """Until the prompt of child.parent_id is computed."""
        self._children.setdefault(child.parent_id, {})[child.request_id] = child

    def take(self, parent_id: str) -> list[Sequence]:
        """The children of a parent, which wait no longer."""
        return list(self._children.pop(parent_id, {}).values())

    def withdraw(self, request_id: str) -> Sequence | None:
        """A child that is to be served no more; None when it does not wait here."""
        for parent_id, children in self._children.items():
            if (child := children.pop(request_id, None)) is not None:
                if not children:
                    del self._children[parent_id]
                return child
        return None
