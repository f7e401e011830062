import { expect, test } from "vitest";

import { languageOf } from "./language";

test("the browser's first language that the page has is taken", () => {
  expect(languageOf("auto", ["zh-Hans-CN", "en"])).toBe("zh");
  expect(languageOf("auto", ["fr-FR", "zh-TW", "en"])).toBe("zh");
  expect(languageOf("auto", ["en-GB", "zh"])).toBe("en");
});

test("English is for everybody else", () => {
  expect(languageOf("auto", ["fr", "de"])).toBe("en");
  expect(languageOf("auto", [])).toBe("en");
});

test("the settings have the last word", () => {
  expect(languageOf("en", ["zh"])).toBe("en");
  expect(languageOf("zh", ["en"])).toBe("zh");
});
