/// <reference types="vitest/config" />
/** Builds the chat page into the Python package, which serves it: see docs/page.md. */
import { fileURLToPath } from "node:url";

import { defineConfig } from "vite";

import { katexFonts } from "./plugins/katexFonts.ts";
import { licences } from "./plugins/licences.ts";

const fontLicence = fileURLToPath(new URL("plugins/OFL-katex-fonts.txt", import.meta.url));

export default defineConfig({
  base: "./", // works below any path of a proxy
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  plugins: [katexFonts(), licences({ also: { katex: fontLicence } })],
  build: {
    outDir: "../src/antiphon/http/page_files",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // the page's policy allows no data: fonts or styles
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  test: { testTimeout: 120_000 }, // a test fails for what it finds, not because the machine is busy
  // In development, the server runs beside vite.
  server: { proxy: { "^/(v1|tokenize|ready|metrics)": "http://127.0.0.1:8000" } },
});
