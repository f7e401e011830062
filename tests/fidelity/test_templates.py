"""Chat templates beside `transformers`: the same text for what published templates use."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.text.template import ChatTemplate

VALUE = {"b": 'é<\u2028😀"\\', "a": [1, 2.5, None, True], "c": {}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "x", "value": VALUE},
    {"role": "assistant", "content": "y"},
]
# The part of Qwen3's template that decides on thoughts, in short.
QWEN3 = """{%- for m in messages %}{%- set content = m.content %}
{%- if m.role == 'assistant' %}{%- set reasoning_content = '' %}
{%- if m.reasoning_content is string %}{%- set reasoning_content = m.reasoning_content %}
{%- elif '</think>' in content %}
{%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}
{{- '<|im_start|>assistant\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
{%- else %}{{- '<|im_start|>' + m.role + '\n' + content }}{%- endif %}
{{- '<|im_end|>\n' }}{%- endfor %}"""


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].value | tojson }}",
        "{{ messages[0].value | tojson(indent=2) }}",
        "{{ messages[0].value | tojson(true) }}",
        "{{ messages[0].value | tojson(true, 4) }}",
        "{{ messages[0].value | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}",
        "{% for m in messages %}\n  {%- generation %}\n  {{ m.content }} {% set x = 3 %}\n  {%- endgeneration %}\n"
        "{{ x }}\n{% endfor %}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}\n\nx",
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
        QWEN3,
    ],
)
def test_templates_render_as_transformers_renders_them(source):
    from transformers.utils.chat_template_utils import render_jinja_template

    template = ChatTemplate(source)
    try:
        rendered = template.render(MESSAGES)
    finally:
        template.close()
    assert [rendered] == render_jinja_template([MESSAGES], chat_template=source)[0]
