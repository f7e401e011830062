"""Nothing that a model says becomes anything but text on the page, and the page's policy comes with every reply."""

from __future__ import annotations

import httpx2
import pytest
from chat_page import ChatPage, Visit
from documents import ATTACKS
from page_server import KEY, PATIENCE, PageServer
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}

# What is wrong with the elements below one: names, attributes and addresses that an answer may not have.
FAULTS = """(root) => {
  const tags = new Set(("A BDI BLOCKQUOTE BR BUTTON CODE DD DEL DIV DL DT EM FIGURE FIGCAPTION H1 H2 H3 H4 H5 H6 HR " +
    "INPUT LI OL P PRE S SMALL SPAN STRONG SUB SUP TABLE TBODY TD TH THEAD TR UL").split(" "));
  const faults = [];
  for (const element of root.querySelectorAll("*")) {
    const inFormula = element.closest(".katex, .katex-error, .formula") !== null;
    const isIcon = element.closest("button svg.icon") !== null;
    if (!inFormula && !isIcon && !tags.has(element.tagName)) faults.push(`element ${element.tagName}`);
    if (/^(script|style|iframe|frame|object|embed|img|image|form|meta|base|link|foreignobject|use|animate)$/i
      .test(element.localName)) faults.push(`element ${element.localName}`);
    if (element.localName === "input" && element.type !== "checkbox") faults.push("an input");
    for (const { name, value } of element.attributes) {
      if (/^on/i.test(name) || /^(src|srcset|srcdoc|action|formaction|background|poster|xlink:href)$/i.test(name))
        faults.push(`attribute ${name}`);
      if (name === "href" && !/^(https?|mailto):/i.test(value)) faults.push(`href ${value}`);
      if (name === "id") faults.push(`id ${value}`);
      if (name === "style" && !inFormula && !/^text-align/.test(value)) faults.push(`style ${value}`);
      if (name === "style" && /url|position: ?fixed|[0-9]{5}em/.test(value)) faults.push(`style ${value}`);
    }
    if (element.localName === "a") {
      const rel = element.rel.split(" ");
      if (!rel.includes("noopener") || !rel.includes("noreferrer")) faults.push(`rel ${element.rel}`);
      const { protocol, host } = new URL(element.href);
      if (protocol !== "mailto:" && !element.textContent.includes(host) && !(element.title || "").includes(host))
        faults.push(`the host of ${element.href} is not shown`);
    }
  }
  return faults;
}"""


async def faults_of(tab: ChatPage) -> list[str]:
    """What an attack got through, in the last answer or in the page around it."""
    faults: list[str] = await tab.answer().evaluate(FAULTS)
    if await tab.page.evaluate("window.pwned !== undefined"):
        faults.append("a script ran")
    if await tab.page.evaluate("document.querySelectorAll('iframe, object, embed, form[action], base').length"):
        faults.append("a frame, an object, a form or a base")
    return faults


async def test_no_attack_in_an_answer_becomes_more_than_text(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    found: dict[str, list[str]] = {}
    for name, attack in ATTACKS.items():
        await tab.new_chat()
        await tab.ask(attack)
        await tab.until_done()
        if faults := await faults_of(tab):
            found[name] = faults
    assert not found
    assert tab.page.url.startswith(echo.url)


async def test_no_attack_in_a_thought_becomes_more_than_text(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    found: dict[str, list[str]] = {}
    for name in ("script", "svg with a handler", "javascript link", "remote image", "formula with a link", "style"):
        await tab.new_chat()
        await tab.ask(f"<think>{ATTACKS[name]}\n\n</think>Done.")
        await tab.until_done()
        await tab.thought_head().click()
        if faults := await tab.thought().evaluate(FAULTS):
            found[name] = faults
    assert not found


async def test_what_the_user_types_is_shown_as_it_was_typed(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    typed = '<img src=x onerror="window.pwned = 1"> **not bold** [x](javascript:alert(1))'
    await tab.ask(typed)
    await tab.until_done()
    await expect(tab.questions.first).to_contain_text(typed)
    assert await tab.questions.first.locator("img, strong, a").count() == 0


async def test_a_title_of_markup_is_text_everywhere(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    await tab.ask(ATTACKS["image with a handler"])
    await tab.until_done()
    await expect(tab.conversations.get_by_text("<img src=x")).to_be_visible()
    assert await tab.page.locator("img").count() == 0


async def test_the_policy_is_on_the_page_its_files_and_the_api(echo: PageServer):
    with httpx2.Client(base_url=echo.url, timeout=PATIENCE, trust_env=False) as client:
        page = client.get("/", headers={"Accept": "text/html"})
        assert page.headers["content-type"].startswith("text/html")
        script = page.text.split('src="./')[1].split('"')[0]
        for reply in (page, client.get(f"/{script}"), client.get("/v1/models"), client.get("/nowhere")):
            policy = dict(each.strip().split(" ", 1) for each in reply.headers["content-security-policy"].split(";"))
            assert policy | POLICY == policy, reply.url
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["referrer-policy"] == "no-referrer"


async def test_with_keys_only_the_files_of_the_page_are_open(locked: PageServer):
    browser = {"Accept": "text/html"}
    with httpx2.Client(base_url=locked.url, timeout=PATIENCE, trust_env=False) as client:
        page = client.get("/", headers=browser)
        assert page.status_code == 200
        assert KEY not in page.text
        script = page.text.split('src="./')[1].split('"')[0]
        assert client.get(f"/{script}").status_code == 200
        for path in ("/v1/models", "/v1/status", "/metrics", "/docs", "/assets/nowhere.js", "/assets/../v1/models"):
            assert client.get(path, headers=browser).status_code == 401, path


async def test_the_policy_of_the_page_would_stop_a_script_that_got_in(echo: PageServer, visit: Visit):
    tab = await visit(echo)
    tab.expects("policy: ", "Content Security Policy", "Trusted", "blocked", "request to another host")
    answered: list[str] = []
    tab.page.on("response", lambda response: answered.append(response.url))
    refused = await tab.page.evaluate(
        """async () => {
          const refused = [];
          try { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); } catch { refused.push("markup"); }
          // Later, since what the test itself runs may do this.
          await new Promise((done) => setTimeout(() => {
            try { Function("window.pwned = 1")(); } catch { refused.push("eval"); }
            done();
          }));
          try { await fetch("https://evil.invalid/"); } catch { refused.push("fetch"); }
          const image = new Image();
          await new Promise((done) => { image.onerror = done; image.src = "https://evil.invalid/x.png"; });
          refused.push("image");
          return refused;
        }"""
    )
    assert refused == ["markup", "eval", "fetch", "image"]
    assert not [url for url in answered if "evil" in url]
