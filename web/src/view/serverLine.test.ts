import { expect, test } from "vitest";

import type { ServerStatus } from "../api/types";
import { en } from "../words/en";
import { zh } from "../words/zh";
import { describe } from "./serverLine";

const ready: ServerStatus = { state: "ready", model: "m", version: "1", running: 12, waiting: 3, tokensPerSecondForYou: 9.1 };

test("a busy server says how busy it is and what that means", () => {
  expect(describe(en, ready, "ok")?.parts).toEqual([
    "12 being answered, 3 waiting",
    "about 9.1 tokens/s for you",
    "1,000 tokens ≈ 2 min",
  ]);
  expect(describe(zh, ready, "ok")?.parts[0]).toBe("12 个正在回答，3 个在排队");
});

test("nothing is said of a speed that is not known", () => {
  const { tokensPerSecondForYou: _, ...unknown } = ready;
  expect(describe(en, { ...unknown, running: 0, waiting: 0 }, "ok")?.parts).toEqual([en.status.free]);
});

test("loading shows its progress where there is one", () => {
  const line = describe(en, { ...ready, state: "loading", loading: 0.4 }, "ok");
  expect(line).toEqual({ tone: "warn", parts: ["Loading the model: 40%"], progress: 0.4 });
  expect(describe(en, { ...ready, state: "loading" }, "ok")).toEqual({ tone: "warn", parts: ["Loading the model"] });
});

test("a server that cannot be reached can be tried again at once", () => {
  expect(describe(en, ready, "unreachable")).toEqual({ tone: "bad", parts: [en.status.unreachable], retry: true });
});

test("a server that keeps its state to itself gets no line", () => {
  expect(describe(en, null, "closed")).toBeNull();
});

test.each(["restarting", "draining", "failed", "stopped"] as const)("%s is put into words", (state) => {
  expect(describe(en, { ...ready, state }, "ok")?.parts).toEqual([en.status[state]]);
});
