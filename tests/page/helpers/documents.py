"""Answers with everything that the page can show, to be streamed and shown at once, and attacks on it."""

from __future__ import annotations

# Each ends without a blank line, as answers do: the server strips nothing.
DOCUMENTS = {
    "prose": """# Notes on *streams*

A paragraph with **bold**, *emphasis*, ~~struck~~ and `code`, a [link](https://example.org/a?b=c "title"), and
a line that goes on. Hard break follows\\
here. <https://example.org/auto> &amp; &copy; \\*not emphasis\\*.

> A quotation
> with two lines
>
> > and one inside

---

Setext heading
==============

![a picture](https://example.org/x.png) and an [unused][ref] reference.

[ref]: https://example.org/late "Defined late"
""",
    "lists": """1. one
2. two
   - nested
   - again

     with a paragraph
3. three

* loose

* items

- [ ] open
- [x] done

| Left | Right | Middle |
|:-----|------:|:------:|
| a    |     1 | `x|y`  |
| b \\| c |  22 | **z** |

After the table.
""",
    "formulas": """Inline \\(a^2 + b^2 = c^2\\), with dollars $e^{i\\pi} + 1 = 0$, and money: $5 or $10, 3$.

$$
\\int_0^1 x^2 \\, dx = \\frac{1}{3}
$$

\\[
\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}
\\]

So the answer is \\(\\boxed{42}\\). An open one: \\(x + and a broken one $\\frac{1$ stay text.
""",
    "code": """Some code:

```python
def f(x: int) -> int:
    \"\"\"Doc.\"\"\"
    return x * 2  # twice
```

    indented code

~~~
tildes with ``` inside
~~~

`` a ` b ``

```html
<script>alert(1)</script>
```

```unknown-language
plain
""",
    "chinese": """**注意：**这里是*重点*。公式 $x^2$，代码 `打印("你好")`。

1. 第一，**“引号”**和全角标点。
2. 第二 🎉 表情👩‍👩‍👧 与 é 组合。

> 引用：天行健，君子以自强不息。
""",
}

ATTACKS = {
    "script": "<script>window.pwned = 1</script>",
    "image with a handler": '<img src=x onerror="window.pwned = 1">',
    "svg with a handler": '<svg onload="window.pwned = 1"><script>window.pwned = 1</script></svg>',
    "frame": '<iframe src="https://evil.example/" srcdoc="<script>parent.pwned=1</script>"></iframe>',
    "object and embed": '<object data="https://evil.example/x.swf"></object><embed src="https://evil.example/">',
    "style": "<style>body { display: none } @import url(https://evil.example/x.css);</style>",
    "style attribute": '<p style="position:fixed;inset:0;background:url(https://evil.example/x)">over it all</p>',
    "form": '<form action="https://evil.example/"><input name=key autofocus onfocus="window.pwned=1"></form>',
    "base and meta": '<base href="https://evil.example/"><meta http-equiv="refresh" content="0;url=https://evil.example/">',
    "link element": '<link rel="stylesheet" href="https://evil.example/x.css"><link rel=prefetch href="//e.example">',
    "details and template": '<details open ontoggle="window.pwned=1"><summary>s</summary></details><template>',
    "broken comment": "<!--><script>window.pwned=1</script-->",
    "mutation": '<math><mtext><table><mglyph><style><img src=x onerror="window.pwned=1"></style></table></math>',
    "javascript link": "[click](javascript:window.pwned=1)",
    "javascript link in disguise": "[click](JaVaScRiPt&colon;window.pwned=1) [click](java&#10;script:window.pwned=1)",
    "javascript autolink": "<javascript:window.pwned=1> <vbscript:msgbox(1)>",
    "data link": "[click](data:text/html;base64,PHNjcmlwdD53aW5kb3cucHduZWQ9MTwvc2NyaXB0Pg==)",
    "file and blob links": "[a](file:///etc/passwd) [b](blob:https://evil.example/1) [c](filesystem:http://x/1)",
    "link by reference": "[click][x]\n\n[x]: javascript:window.pwned=1 'title'",
    "remote image": "![tracked](https://evil.example/pixel.png)",
    "data image": "![svg](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+PC9zdmc+)",
    "image in a link": "[![x](https://evil.example/y.png)](javascript:window.pwned=1)",
    "link that leaves its attribute": '[x](https://e.org/"onmouseover="window.pwned=1") [y](<//e.org/" onclick="p>)',
    "link with a name and a password": "[bank](https://bank.example@evil.example/)",
    "link to the other direction": "[a](https://example.org/\u202egnp.exe) \u202eevil\u202c",
    "title that leaves its attribute": "[x](https://example.org 'a\" onmouseover=\"window.pwned=1')",
    "fence with a name": '```"><img src=x onerror=window.pwned=1>\ncode\n```',
    "fence with a class": "```constructor __proto__\ncode\n```\n\n```toString\ncode\n```",
    "formula with a link": "$\\href{javascript:window.pwned=1}{click}$ $\\url{javascript:window.pwned=1}$",
    "formula with a picture": "$\\includegraphics[width=99em]{https://evil.example/x.png}$",
    "formula with html": "$\\htmlClass{a}{x}$ $\\htmlId{app}{x}$ $\\htmlStyle{position:fixed}{x}$ $\\htmlData{a=b}{x}$",
    "formula without end": "$\\def\\a{\\a\\a}\\a$ $\\newcommand{\\b}{\\b\\b\\b}\\b$",
    "formula that is huge": "$\\rule{999999em}{999999em}$ $\\kern{99999em}x$ $\\raisebox{9999em}{x}$",
    "formula with a million cells": "$$\\begin{matrix}" + "&" * 600 + "\\end{matrix}$$",
    "names of elements": "[x](https://example.org#app) # app\n\n## constructor\n\n## __proto__",
    "nested quotations": ">" * 700 + " deep",
    "nested lists": "\n".join("  " * depth + "- x" for depth in range(60)),
    "nested emphasis": "*a **b " * 200,
    "open brackets": "[" * 2000 + "x" + "](y)" * 30,
    "backticks": "".join("`" * n + " x " for n in range(1, 60)),
    "stars": "*" * 1500 + "a" + "_" * 1500,
    "unclosed links": "[a](" * 600,
    "unclosed tags": "<a" * 1200 + "<![CDATA[" * 100 + "<!--" * 200 + "<?" * 200,
    "wide table": "|" + "a|" * 120 + "\n|" + "-|" * 120 + "\n" + ("|" + "b|" * 120 + "\n") * 3,
    "dollars": "$" * 801 + "\n\n" + "$a " * 400,
    "references": "".join(f"[r{n}]: https://example.org/{n}\n" for n in range(60)) + "[r1] " * 60,
    "entities": "&lt;script&gt; &#x3C;script&#x3E; &#0; &#x110000; &nosuch;",
    "odd characters": "a\u0000b\u2028c\u2029d\ufeffe\u200bf \ud7ff \ufffd \U000e0041",
}
