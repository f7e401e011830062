/** Settings over reloads of the page. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { storedName } from "../store/place";
import { Browser } from "../testing/browser";

let browser: Browser;

beforeEach(() => {
  browser = new Browser();
});

afterEach(() => browser.close());

/** The module as a page that has just been loaded sees it. */
async function loaded(): Promise<typeof import("./settings")> {
  vi.resetModules();
  return import("./settings");
}

test("what was set is there after the page was loaded again, for the next answer too", async () => {
  const before = await loaded();
  before.update({ temperature: 0.3, theme: "dark", presets: [{ name: "Brief", settings: { seed: 1 } }] });
  const after = await loaded();
  expect(after.settings.value).toEqual(before.settings.value);
  expect(after.answerSettings()).toEqual({ temperature: 0.3 });
  expect(after.presets.value.map((preset) => preset.name)).toEqual(["", "Brief"]);
});

test("the publisher's advice leaves to the server what another preset has set", async () => {
  const { apply, presets, answerSettings, update } = await loaded();
  update({ temperature: 0.3, seed: 7, logprobs: 2 });
  const [advice] = presets.value;
  if (advice) apply(advice);
  expect(answerSettings()).toEqual({ logprobs: 2 });
});

test.each(["", "{", "[1]", "null", '"x"', '{"temperature": "hot", "theme": 3, "presets": [1], "toString": 1, "other": 2}'])(
  "what is stored and has no meaning is left out: %j",
  async (text) => {
    localStorage.setItem(storedName("settings"), text);
    const { settings } = await loaded();
    expect(settings.value).toEqual({ language: "auto", theme: "auto", sendKey: "enter", presets: [] });
  },
);
