"""Chat templates render as transformers renders them."""

from __future__ import annotations

from typing import Any

import pytest

from llmlab import models
from llmlab.errors import ModelError
from llmlab.models.chat import render_chat

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# namespaces, loop controls, white space control, tojson, tests of undefined names
TRICKY = """
{%- set ns = namespace(found=false, last=-1) %}
{%- for message in messages %}
    {%- if message.role == "tool" %}
        {%- continue %}
    {%- endif %}
    {%- if message.role == "user" and not ns.found %}
        {%- set ns.found = true %}
        {%- set ns.last = loop.index0 %}
    {%- endif %}
<{{ message.role | upper }}>{{ message.content | trim }}{% if message.tags is defined %} {{ message.tags | tojson }}{%
endif %}

{% endfor %}
{% if tools %}
{{ tools | tojson(indent=2) }}
{% endif %}
  {% if enable_thinking is defined and enable_thinking is false %}
<think></think>
  {% endif %}
{%- if ns.last >= 0 %}first={{ ns.last }}{% endif %}
{% if add_generation_prompt %}{{ bos_token }}<ASSISTANT>{% endif %}
"""
GENERATION = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}\n"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  What is <b>2 & 2</b>?\n"},
    {"role": "assistant", "content": '4 — "four", 四 🚀'},
    {"role": "user", "content": "And\n\n3?", "tags": ["<x>", "é", {"k": None}]},
]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"a": "<int>"}}}


def by_transformers(template: str, messages: list[dict[str, Any]], **variables: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template([messages], chat_template=template, **variables)
    return rendered[0]


@pytest.mark.slow
@pytest.mark.parametrize("template", ["embedded", LLAMA2, TRICKY, GENERATION])
@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("messages", [CONVERSATION, CONVERSATION[1:], CONVERSATION[1:2]])
def test_rendering_equals_transformers(
    smollm2: models.Model, template: str, add_generation_prompt: bool, messages: list[dict[str, Any]]
) -> None:
    text = smollm2.chat_template if template == "embedded" else template
    assert text
    variables = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": add_generation_prompt}
    assert render_chat(text, messages, **variables) == by_transformers(text, messages, **variables)


@pytest.mark.slow
def test_variables_reach_the_template() -> None:
    variables: dict[str, Any] = {"bos_token": "", "eos_token": "", "add_generation_prompt": True}
    variables |= {"tools": [TOOL], "enable_thinking": False}
    rendered = render_chat(TRICKY, CONVERSATION, **variables)
    assert rendered == by_transformers(TRICKY, CONVERSATION, **variables)
    assert "<think></think>" in rendered
    assert '"a": "<int>"' in rendered  # not escaped for HTML


def test_the_embedded_model_adds_its_system_prompt_and_opens_the_answer(smollm2: models.Model) -> None:
    assert smollm2.chat_template
    assert render_chat(smollm2.chat_template, [{"role": "user", "content": "Hi"}]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_conversation_that_the_template_refuses_says_why() -> None:
    twice = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    with pytest.raises(ModelError, match=r"Conversation roles must alternate.*Roles sent: \['user', 'user'\]"):
        render_chat(LLAMA2, twice)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append('x') }}",
        "{{ messages[0].missing.deeper }}",
        "{{ 1 / 0 }}",
        "{{ range(10 ** 9) | list }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
)
def test_hostile_and_broken_templates_are_model_errors(template: str) -> None:
    with pytest.raises(ModelError, match="chat template refuses"):
        render_chat(template, [{"role": "user", "content": "Hi"}])


def test_a_syntax_error_names_the_line() -> None:
    with pytest.raises(ModelError, match=r"chat template is broken at line 2: .*endfor"):
        render_chat("\n{% for m in messages %}", [])
