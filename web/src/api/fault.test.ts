/** What the page makes of errors. */
import { expect, test, vi } from "vitest";
import { faultOfException, faultOfResponse } from "./fault";

async function fault(status: number, body: unknown, headers: Record<string, string> = {}) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return (await faultOfResponse(new Response(text, { status, headers }))).fault;
}

const openai = (code: string | null, message = "Wrong.", param: string | null = null) => ({
  error: { message, type: "invalid_request_error", param, code },
});

test.each([
  [401, openai("invalid_api_key"), "unauthorized"],
  [429, openai("rate_limit_exceeded"), "rate"],
  [429, openai("server_overloaded"), "overloaded"],
  [503, openai("server_overloaded"), "overloaded"],
  [503, openai("not_ready"), "loading"],
  [503, openai("too_many_connections"), "overloaded"],
  [529, openai(null), "overloaded"],
  [400, openai("context_length_exceeded"), "context"],
  [400, openai(null), "refused"],
  [404, openai("model_not_found"), "refused"],
  [500, openai("internal_error"), "failed"],
  [502, "<html>Bad Gateway</html>", "unreachable"],
  [504, "", "unreachable"],
])("%i %j is %s", async (status, body, kind) => {
  expect((await fault(status, body)).kind).toBe(kind);
});

test("the field that is wrong and the server's words are kept", async () => {
  expect(await fault(400, openai("unsupported_parameter", "Not here.", "background"))).toEqual({
    kind: "refused",
    message: "Not here.",
    code: "unsupported_parameter",
    param: "background",
  });
});

test("bodies that are no error of OpenAI's", async () => {
  expect((await fault(500, "<h1>no</h1>")).message).toBe("HTTP 500");
  expect((await fault(422, { detail: "why" })).message).toBe("why");
  expect((await fault(500, { error: "short" })).message).toBe("short");
  expect((await fault(500, "[1]")).message).toBe("HTTP 500");
});

test("when to try again: milliseconds, seconds or a date", async () => {
  expect((await fault(429, "", { "retry-after-ms": "1500", "retry-after": "9" })).retryAfter).toBe(1.5);
  expect((await fault(429, "", { "retry-after": "9" })).retryAfter).toBe(9);
  vi.useFakeTimers({ now: new Date("2026-01-01T00:00:00Z") });
  expect((await fault(429, "", { "retry-after": "Thu, 01 Jan 2026 00:00:30 GMT" })).retryAfter).toBe(30);
  vi.useRealTimers();
  expect((await fault(429, "", { "retry-after": "soon" })).retryAfter).toBeUndefined();
  expect((await fault(429, "")).retryAfter).toBeUndefined();
});

test("a server that says that trying again is of no use", async () => {
  expect((await fault(503, "", { "x-should-retry": "false" })).final).toBe(true);
});

test("the numbers of a context that is too small", async () => {
  const message = "This model's maximum context length is 16384 tokens. However, the prompt has 20000 tokens, and at least one must be left for the answer.";
  expect((await fault(400, openai("context_length_exceeded", message))).room).toEqual({ limit: 16384, used: 20000, atLeast: false });
});

test("an exception is the connection's", () => {
  expect(faultOfException(new TypeError("Failed to fetch")).fault).toEqual({ kind: "unreachable", message: "Failed to fetch" });
});
