/** The status is asked for by visible tabs, the meter counts when the draft rests, the key is kept. */
import { expect, test } from "vitest";
import { opened, until } from "../testing/browser";
import { refusal } from "../testing/server";
import { browser, server } from "../testing/setup";

test("a hidden tab asks for nothing, and asks at once when it is shown", async () => {
  browser.show(false);
  const page = await opened(browser);
  page.server.pollNow();
  expect([page.server.reach.value, page.server.status.value]).toEqual(["unknown", null]);
  browser.show(true);
  await until(() => page.server.status.value?.model === "tiny");
  expect(page.server.reach.value).toBe("ok");
});

test("reach: closed, unauthorized, unreachable, and well again", async () => {
  const page = await opened(browser);
  await until(() => page.server.reach.value === "ok");
  const answers: [() => Response, string][] = [
    [refusal(404, { message: "Unknown.", code: "unknown_url" }), "closed"],
    [refusal(401, { message: "No key.", code: "invalid_api_key" }), "unauthorized"],
  ];
  for (const [answer, reach] of answers) {
    server.statusRefusal = answer;
    page.server.pollNow();
    await until(() => page.server.reach.value === reach, reach);
    expect(page.server.status.value).toBeNull();
  }
  server.statusRefusal = undefined;
  server.isDown = true;
  page.server.pollNow();
  await until(() => page.server.reach.value === "unreachable");
  server.isDown = false;
  page.server.pollNow();
  await until(() => page.server.reach.value === "ok");
});

test("an engine that starts again pauses its answers", async () => {
  const open: (() => void)[] = [];
  let left = 6;
  server.pace = async () => {
    if (left-- <= 0) await new Promise<void>((resolve) => open.push(resolve));
  };
  const page = await opened(browser);
  page.generation.send("Go");
  const phase = (): string | undefined => page.generation.live.value.values().next().value?.phase;
  await until(() => phase() === "thinking");
  server.state["state"] = "restarting";
  page.server.pollNow();
  await until(() => phase() === "restarting");
  server.state["state"] = "ready";
  server.pace = async () => undefined;
  for (const resolve of open) resolve();
  await until(() => page.generation.live.value.size === 0);
  expect(page.conversation.path(page.conversations.current.value).at(-1)?.answer?.state).toBe("done");
});

test("the meter estimates at once and then has the server's count, of the latest draft", async () => {
  const page = await opened(browser);
  const { measure, meter } = await import("./meter");
  await until(() => page.server.status.value !== null);
  measure({ text: "x".repeat(70), attachments: [] });
  expect(meter.value).toEqual({ used: 20, limit: 2048, exact: false });
  measure({ text: "y", attachments: [] });
  await until(() => meter.value?.exact === true);
  expect(server.requests(/input_tokens/)).toHaveLength(1);
  expect(server.requests(/input_tokens/)[0]?.body).toEqual({ input: [{ type: "message", role: "user", content: "y" }] });
  expect(meter.value?.used).toBe(JSON.stringify(server.requests(/input_tokens/)[0]?.body["input"]).length);
});

test("the key is kept for the session, and longer only on wish", async () => {
  const page = await opened(browser);
  page.client.apiKey.value = "secret";
  expect(sessionStorage.getItem("antiphon:/chat/:key")).toBe("secret");
  expect(localStorage.getItem("antiphon:/chat/:key")).toBeNull();
  page.client.rememberKey(true);
  expect(localStorage.getItem("antiphon:/chat/:key")).toBe("secret");
  page.client.rememberKey(false);
  expect(localStorage.getItem("antiphon:/chat/:key")).toBeNull();
});

test("a key that no header can have is refused here, not blamed on the connection", async () => {
  const page = await opened(browser);
  page.client.apiKey.value = "schlüssel";
  await expect(page.client.request("v1/models")).rejects.toMatchObject({ fault: { kind: "unauthorized" } });
});
