/**
 * Writes LICENSES.txt: the licences of all packages whose code, style or fonts are in the built page, and of no others. The build fails
 * if such a package has no licence file.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import type { Plugin, Rolldown } from "vite";

const LICENCE = /^(licen[cs]e|copying)([-.].*)?$/i;
const FOLDER = "/node_modules/";

interface Options {
  /** Files with further licences, by the package that they belong to: of fonts, for instance. */
  also?: Readonly<Record<string, string>>;
}

export function licences({ also = {} }: Options = {}): Plugin {
  return {
    name: "licences",
    apply: "build",
    generateBundle(_options, bundle) {
      const source = document([...bundledFolders(bundle)].map((folder) => packageIn(folder, also)));
      this.emitFile({ type: "asset", fileName: "LICENSES.txt", source });
    },
  };
}

interface Package {
  name: string;
  version: string;
  licence: string; // by its short name
  texts: string[];
}

/** The folders of the packages with a module in the output. What was dropped as unused does not count. */
function bundledFolders(bundle: Rolldown.OutputBundle): Set<string> {
  const folders = new Set<string>();
  for (const output of Object.values(bundle)) {
    if (output.type !== "chunk") continue;
    for (const [id, module] of Object.entries(output.modules)) {
      const folder = folderOf(id);
      if (folder && (module.renderedLength > 0 || id.includes(".css"))) folders.add(folder);
    }
  }
  return folders;
}

/** The folder of the package that a module is in; null for the page's own. */
export function folderOf(id: string): string | null {
  const start = id.lastIndexOf(FOLDER);
  if (start < 0) return null;
  const parts = id.slice(start + FOLDER.length).split("/");
  return id.slice(0, start + FOLDER.length) + parts.slice(0, parts[0]?.startsWith("@") ? 2 : 1).join("/");
}

export function packageIn(folder: string, also: Readonly<Record<string, string>>): Package {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Record<string, string>;
  const files = readdirSync(folder).filter((file) => LICENCE.test(file)).toSorted();
  if (!files.length) throw new Error(`The page would contain ${name}, which has no licence file in ${folder}.`);
  const paths = files.map((file) => join(folder, file));
  const more = also[name ?? ""];
  if (more) paths.push(more);
  const missing = paths.find((path) => !existsSync(path));
  if (missing) throw new Error(`There is no licence file ${missing}.`);
  const texts = paths.map((path) => readFileSync(path, "utf8").replace(/\r\n?/g, "\n").trim());
  return { name: name ?? "", version: version ?? "", licence: license ?? "", texts };
}

const RULE = "-".repeat(78);

/** The same packages give the same bytes, whatever their order. */
export function document(packages: readonly Package[]): string {
  const sorted = packages.toSorted((one, other) => (one.name < other.name ? -1 : 1));
  const parts = sorted.map(({ name, version, licence, texts }) => `${RULE}\n${name} ${version} (${licence})\n\n${texts.join("\n\n")}\n`);
  return ["The chat page of Antiphon contains these packages, each under its own licence.\n", ...parts].join("\n");
}
