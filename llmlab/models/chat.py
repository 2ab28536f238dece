"""A conversation as one prompt, by the model's own chat template, exactly as transformers renders it.

Templates come with the model and are untrusted code: they run in Jinja's immutable sandbox. This file must not know
tokenizers or models.

Source: transformers 5.23 utils/chat_template_utils.py _compile_jinja_template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from llmlab.errors import ModelError

if TYPE_CHECKING:
    from jinja2 import Template

# text, or a list of parts such as {"type": "text", "text": ...}
Message = Mapping[str, Any]


def render_chat(
    template: str,
    messages: Sequence[Message],
    bos_token: str = "",
    eos_token: str = "",
    add_generation_prompt: bool = True,
    **variables: Any,
) -> str:
    """The prompt of a conversation, ready to be tokenized with special tokens parsed and none added.

    `variables` reach the template by name, such as `tools` or Qwen3's `enable_thinking`.

    >>> template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    >>> render_chat(template, [{"role": "user", "content": "Hi"}])
    '<user>Hi'

    Raises ModelError when the template is broken, or refuses this conversation (such as two user turns in a row).
    """
    from jinja2 import TemplateError

    try:
        return _compile(template).render(
            messages=list(messages),
            bos_token=bos_token,
            eos_token=eos_token,
            add_generation_prompt=add_generation_prompt,
            **{"tools": None, "documents": None, **variables},
        )
    except (TemplateError, TypeError, ValueError, KeyError, ArithmeticError, RecursionError) as error:
        raise ModelError(
            f"The model's chat template refuses this conversation: {error or type(error).__name__}. Roles sent:"
            f" {[message.get('role') for message in messages]}. Change them, or send the prompt as it is with"
            " --raw-prompt."
        ) from error


def without_second_bos(text: str, token_ids: list[int], bos_token: str) -> list[int]:
    """The token ids of a prompt, with one BOS token where the template wrote one and the tokenizer added another.

    Models are trained on one.

    >>> without_second_bos("<s>Hi", [1, 1, 15], "<s>"), without_second_bos("Hi", [1, 15], "<s>")
    ([1, 15], [1, 15])
    """
    has_two = bos_token and text.startswith(bos_token) and len(token_ids) > 1 and token_ids[0] == token_ids[1]
    return token_ids[1:] if has_two else token_ids


@lru_cache(maxsize=16)
def _compile(template: str) -> Template:
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError, TemplateSyntaxError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationTag(Extension):
        """`{% generation %}` marks the model's own words for training; its content is rendered like any other."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    try:
        return environment.from_string(template)
    except TemplateSyntaxError as error:
        raise ModelError(
            f"The model's chat template is broken at line {error.lineno}: {error.message}. Send the prompt as it is"
            " with --raw-prompt, or fetch tokenizer_config.json of the model again."
        ) from error


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes < and > for HTML, which would change the prompt
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
