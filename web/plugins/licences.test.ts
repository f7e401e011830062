import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { expect, test } from "vitest";

import { document, folderOf, packageIn } from "./licences.ts";

function packageWith(files: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), "licences-"));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
  return folder;
}

const ABOUT = JSON.stringify({ name: "some-package", version: "1.2.3", license: "MIT" });

test("the package of a module is found below the innermost node_modules, with its scope", () => {
  expect(folderOf("/x/node_modules/katex/dist/katex.mjs")).toBe("/x/node_modules/katex");
  expect(folderOf("/x/node_modules/a/node_modules/@b/c/d.js?used")).toBe("/x/node_modules/a/node_modules/@b/c");
  expect(folderOf("/x/src/main.tsx")).toBeNull();
});

test("a package without a licence file fails the build, by its name", () => {
  expect(() => packageIn(packageWith({ "package.json": ABOUT, "README.md": "MIT" }), {})).toThrow(/some-package.*no licence file/);
});

test("a further licence that is missing fails the build", () => {
  const folder = packageWith({ "package.json": ABOUT, LICENSE: "one" });
  expect(() => packageIn(folder, { "some-package": "/nowhere/OFL.txt" })).toThrow("/nowhere/OFL.txt");
});

test("all licence files of a package are taken, in a fixed order", () => {
  const folder = packageWith({ "package.json": ABOUT, "LICENSE-MIT.txt": "first\r\n", "LICENCE-fonts": "zeroth", license: "second" });
  expect(packageIn(folder, {}).texts).toEqual(["zeroth", "first", "second"]);
});

test("the document does not depend on the order in which modules were found", () => {
  const [one, other] = ["b", "a"].map((name) => ({ name, version: "1", licence: "MIT", texts: [`text of ${name}`] }));
  if (!one || !other) throw new Error("two packages");
  expect(document([one, other])).toBe(document([other, one]));
});
