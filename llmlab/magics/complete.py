"""The hook into IPython's Tab: is this a %llm line, and where does its word begin. What is offered is in offers.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmlab.magics.names import user_names

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext
    from IPython.core.interactiveshell import InteractiveShell

# %llm at the start of a line or after "name =", %%llm at the start of the cell; then what is typed so far.
_LINE = re.compile(r"^\s*(?:[\w.,\[\]'\" ]+=\s*)?%(?P<cell>%)?(?:llm|llmlab)(?P<rest>\s.*)$")


def make_matcher(shell: InteractiveShell) -> Callable[[CompletionContext], dict[str, Any]]:
    """The matcher to hang into `shell.Completer.custom_matchers`."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher(identifier="llmlab")  # type: ignore[untyped-decorator]
    def llmlab_matcher(context: CompletionContext) -> dict[str, Any]:
        match = _LINE.match(context.text_until_cursor)
        if match is None or (match["cell"] and context.cursor_line > 0):
            return {"completions": [], "suppress": False}
        from llmlab.magics.offers import complete

        offered, fragment = complete(match["rest"], bool(match["cell"]), user_names(shell))
        if offered is None:  # a prompt, or a file name: IPython's own matchers may help
            return {"completions": [], "suppress": False}
        # suppress, even when empty: else Python keywords are offered as the value of a flag
        return {
            "completions": [SimpleCompletion(text, type="llmlab") for text in offered],
            "matched_fragment": fragment,
            "suppress": True,
            "ordered": True,
        }

    return llmlab_matcher
