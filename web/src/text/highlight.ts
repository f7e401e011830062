/** Colours for code: a language that the answer names and that is known here. Loaded when the first such code is shown. */
import type { Element, Root, RootContent, Text } from "hast";

/** A piece of code with its class names, or plain text. */
export type Piece = string | { classes: string; children: Piece[] };

const LONGEST = 50_000; // characters
const LONGEST_LINE = 2000; // what is slow in a grammar is slow within a line
const MOST_PIECES = 8000; // elements: more cost more than colours are worth

interface Language {
  name: string;
  grammar: string; // the name in highlight.js
}

/** By the names that people write after a fence, the grammar's first; a Map, since the name is a stranger's. */
const LANGUAGES: ReadonlyMap<string, Language> = new Map(
  Object.entries({
    Bash: "bash sh shell zsh console shell-session",
    C: "c h",
    "C++": "cpp c++ cc cxx hpp cuda cu",
    "C#": "csharp c# cs",
    CSS: "css",
    Go: "go golang",
    HTML: "xml html svg xhtml vue",
    Java: "java",
    JavaScript: "javascript js jsx mjs cjs node",
    JSON: "json jsonc json5 jsonl",
    Markdown: "markdown md",
    Python: "python py python3 pycon",
    Rust: "rust rs",
    SQL: "sql mysql postgresql postgres sqlite",
    TypeScript: "typescript ts tsx",
    YAML: "yaml yml",
  }).flatMap(([name, list]) => {
    const aliases = list.split(" ");
    return aliases.map((alias): [string, Language] => [alias, { name, grammar: aliases[0] ?? "" }]);
  }),
);

/** How a language is called, as the answer named it where it is not known here. */
export function languageName(language: string): string {
  return LANGUAGES.get(language.toLowerCase())?.name ?? language;
}

/** The pieces of the code; null if its language is not known here or it is too long. */
export async function highlight(code: string, language: string): Promise<Piece[] | null> {
  const known = LANGUAGES.get(language.toLowerCase());
  if (!known || code.length > LONGEST || longestLine(code) > LONGEST_LINE) return null;
  const { colour } = await import("./colour");
  return pieces(colour(known.grammar, code));
}

function longestLine(code: string): number {
  let longest = 0;
  for (let from = 0; from <= code.length; ) {
    const end = code.indexOf("\n", from);
    const next = end < 0 ? code.length : end;
    longest = Math.max(longest, next - from);
    from = next + 1;
  }
  return longest;
}

function pieces(root: Root): Piece[] | null {
  let count = 0;
  const convert = (node: Element | Text | RootContent): Piece => {
    if (node.type === "text") return node.value;
    if (node.type !== "element" || ++count > MOST_PIECES) return "";
    const names = node.properties["className"];
    return { classes: Array.isArray(names) ? names.join(" ") : "", children: node.children.map(convert) };
  };
  const made = root.children.map(convert);
  return count > MOST_PIECES ? null : made;
}
