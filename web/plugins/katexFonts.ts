/** Leaves only the WOFF2 fonts in KaTeX's style: every browser that runs the page reads them, and the others would double its size. */
import type { Plugin } from "vite";

const KATEX = /\/katex\/dist\/katex(\.min)?\.css$/;
const OTHER_FORMATS = /,\s*url\([^)]+\.(?:woff|ttf)\)\s*format\(["'](?:woff|truetype)["']\)/g;

export function katexFonts(): Plugin {
  return {
    name: "katex-fonts",
    enforce: "pre",
    transform(code, id) {
      return KATEX.test(id.split("?")[0] ?? "") ? { code: onlyWoff2(code), map: null } : null;
    },
  };
}

export function onlyWoff2(style: string): string {
  const stripped = style.replace(OTHER_FORMATS, "");
  if (/\.(woff|ttf)\)/.test(stripped)) throw new Error("KaTeX's style names its fonts in another way now: see plugins/katexFonts.ts.");
  return stripped;
}
