import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { afterAll, beforeAll, expect, test } from "vitest";
import { build } from "vite";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const folders: string[] = [];
let files: Map<string, Buffer>;

async function built(): Promise<Map<string, Buffer>> {
  const outDir = mkdtempSync(join(tmpdir(), "page-"));
  folders.push(outDir);
  await build({ root: ROOT, mode: "production", logLevel: "error", build: { outDir, emptyOutDir: true } });
  const names = readdirSync(outDir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(
    names.map((entry) => join(entry.parentPath, entry.name)).toSorted().map((path) => [path.slice(outDir.length + 1), readFileSync(path)]),
  );
}

const digests = (made: Map<string, Buffer>): string[] =>
  [...made].map(([name, bytes]) => `${name} ${createHash("sha256").update(bytes).digest("hex")}`);

beforeAll(async () => {
  files = await built();
}, 300_000);

afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true })));

test("two builds are the same to the byte", async () => {
  expect(digests(await built())).toEqual(digests(files));
}, 300_000);

test("the licences of what is bundled are in the build, and no others", () => {
  const text = files.get("LICENSES.txt")?.toString() ?? "";
  const names = [...text.matchAll(/^-{78}\n(\S+) [\d.]+ \((.+)\)$/gm)].map((match) => match[1]);
  for (const name of ["preact", "@preact/signals-core", "markdown-it", "katex", "highlight.js", "lowlight", "idb"]) expect(names).toContain(name);
  for (const name of ["vite", "vitest", "fast-check", "typescript", "happy-dom"]) expect(names).not.toContain(name);
  expect(names).toEqual(names.toSorted());
  expect(text).toContain("SIL OPEN FONT LICENSE Version 1.1");
});

test("KaTeX's fonts are files of their own, in one format", () => {
  const fonts = [...files.keys()].filter((name) => /KaTeX_.*\.(woff2?|ttf)$/.test(name));
  expect(fonts.length).toBe(20);
  expect(fonts.every((name) => name.endsWith(".woff2"))).toBe(true);
  const styles = [...files].filter(([name]) => name.endsWith(".css")).map(([, bytes]) => bytes.toString());
  expect(styles.join("")).not.toMatch(/data:|https?:/);
});

test("formulas and the colours of code are not in what is loaded first", () => {
  const page = files.get("index.html")?.toString() ?? "";
  const first = [...page.matchAll(/(?:src|href)="\.\/([^"]+\.js)"/g)].map((match) => files.get(match[1] ?? "")?.toString() ?? "");
  expect(first.length).toBeGreaterThan(0);
  for (const script of first) {
    expect(script).not.toContain("ParseError: KaTeX parse error");
    expect(script).not.toContain("hljs-");
  }
});
