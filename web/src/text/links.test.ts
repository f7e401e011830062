import { describe, expect, test } from "vitest";

import { hostToShow, safeLink } from "./links";

describe("a link", () => {
  test.each(["http://a.example/", "https://a.example/x?y#z", "HTTPS://A.EXAMPLE", "mailto:me@a.example"])("may lead to %s", (address) => {
    expect(safeLink(address)).not.toBeNull();
  });

  test.each([
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    " javascript:alert(1)",
    "java\nscript:alert(1)",
    "java\tscript:alert(1)",
    "\u0001javascript:alert(1)",
    "javascript&colon;alert(1)",
    "javascript%3Aalert(1)",
    "vbscript:x",
    "data:text/html,<script>alert(1)</script>",
    "data:image/svg+xml,<svg onload=alert(1)>",
    "blob:https://a.example/1",
    "file:///etc/passwd",
    "ftp://a.example",
    "view-source:https://a.example",
    "intent://a.example",
    "ws://a.example",
    "about:blank",
    "//a.example",
    "/v1/models",
    "#/c/1",
    "?x",
    "a.example",
    "https://",
    "http:///",
    "mailto:",
    "",
  ])("may not lead to %j", (address) => {
    const link = safeLink(address);
    expect(link === null || /^https?:\/\/[^/]/.test(link.href)).toBe(true);
    if (!/^https?:/i.test(address)) expect(link).toBeNull();
  });

  test.each([
    ["https://a.example/x", "click here", "a.example"],
    ["https://a.example/x", "b.example", "a.example"],
    ["https://a.example/x", "https://b.example/", "a.example"],
    ["https://a.example/x", "a.example is good", "a.example"],
    ["https://a.example/x", "https://a.example/other", null],
    ["https://a.example/x", "a.example", null],
    ["https://a.example/x", " A.Example/x ", null],
    ["https://a.example:8443/x", "a.example", "a.example:8443"],
    ["https://bank.example@evil.example/", "https://bank.example@evil.example/", "evil.example"],
    ["https://аррӏе.example/", "apple.example", "xn--80ak6aa92e.example"],
    ["mailto:me@a.example", "me@a.example", null],
    ["mailto:me@a.example", "write to me", "me@a.example"],
  ])("to %s with the words %j shows the host %j", (address, text, host) => {
    const link = safeLink(address);
    expect(link && hostToShow(link, text)).toBe(host);
  });
});
