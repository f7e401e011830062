/** For tests: texts that a hostile or a broken model could write. */

/** Texts that repeat something for as long as wanted: each must cost about as much as its length. */
export const LONG: Readonly<Record<string, (length: number) => string>> = {
  "backticks": repeat("`"),
  "backticks in runs of growing length": growing("`", "a"),
  "open backticks": repeat("`a "),
  "fences": repeat("```\n"),
  "open fences in quotes": repeat("> ```\n"),
  "asterisks": repeat("*"),
  "asterisks and letters": repeat("*a "),
  "opening emphasis": repeat("a **a "),
  "closing emphasis": repeat("a** a"),
  "emphasis of every kind": repeat("*a _b **c __d ~~e "),
  "alternating emphasis": repeat("*a_ "),
  "nested emphasis": nested("**a ", " b**"),
  "underscores": repeat("_"),
  "tildes": repeat("~"),
  "strikethrough": repeat("~~a"),
  "opening brackets": repeat("["),
  "closing brackets": repeat("]"),
  "images that open": repeat("!["),
  "nested images": nested("![a", "](https://a.example)"),
  "nested links": nested("[a", "](https://a.example)"),
  "links that do not close": repeat("[a](<b"),
  "links with open parentheses": repeat("[a](("),
  "links with open titles": repeat('[a](b "'),
  "references": repeat("[a][b] "),
  "definitions": numbered((n) => `[a${n}]: https://a.example/${n}\n`),
  "definitions and their uses": numbered((n) => `[a${n}]\n\n[a${n}]: https://a.example/${n}\n\n`),
  "definitions that do not end": repeat("[a]: b '\n"),
  "labels over many lines": repeat("[a\n"),
  "angles": repeat("<"),
  "tags": repeat("<a "),
  "attributes": repeat("<a b='"),
  "comments": repeat("<!--"),
  "processing instructions": repeat("<?"),
  "CDATA": repeat("<![CDATA["),
  "automatic links": repeat("https://a."),
  "addresses with many dots": repeat("http://a.b.c.d.e.f "),
  "addresses with parentheses": repeat("https://a.example/(("),
  "addresses with trailing marks": repeat("https://a.example/!?,"),
  "mail addresses": repeat("a@b."),
  "mail addresses without an end": repeat("a.b-c_d+"),
  "at signs": repeat("@"),
  "slashes": repeat("//"),
  "colons": repeat("://"),
  "entities": repeat("&"),
  "numeric entities": repeat("&#"),
  "long entities": repeat("&aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
  "backslashes": repeat("\\"),
  "dollars": repeat("$"),
  "dollars and letters": repeat("$a "),
  "dollars and digits": repeat("$5 "),
  "escaped dollars": repeat("\\$"),
  "double dollars": repeat("$$a\n"),
  "double dollars in a line": repeat("a $$ b "),
  "opening formulas": repeat("\\("),
  "opening display formulas": repeat("\\["),
  "opening display formulas on lines": repeat("\\[\n"),
  "closing formulas": repeat("\\)\\]"),
  "formulas that close far away": (length) => `${repeat("\\(")(length)}\\)`,
  "formulas with an escaped end": repeat("\\( \\\\) "),
  "dollars with open text": repeat("$\\text{ "),
  "open boxes": repeat("\\boxed{"),
  "nested boxes": nested("\\boxed{", "}"),
  "braces": repeat("{"),
  "quotes": repeat("> "),
  "quotes on lines": repeat("> > > > > > > > > > > > > > > > > > > > a\n"),
  "deeper and deeper quotes": deeper((depth) => `${"> ".repeat(depth)}a\n`),
  "lists in a line": repeat("- "),
  "lists on lines": repeat("-\n"),
  "lists with numbers": repeat("1. "),
  "deeper and deeper lists": deeper((depth) => `${"  ".repeat(depth)}- a\n`),
  "quotes in lists": repeat("- > "),
  "items and blank lines": repeat("- a\n\n\n"),
  "lines of spaces": repeat("   \n"),
  "spaces": repeat(" "),
  "tabs": repeat("\t"),
  "line breaks": repeat("\n"),
  "hard breaks": repeat("a  \n"),
  "carriage returns": repeat("a\r"),
  "rules": repeat("---\n"),
  "almost rules": repeat("- - - a\n"),
  "hashes": repeat("#"),
  "headings": repeat("# a\n"),
  "headings with hashes and spaces": (length) => `# ${repeat("# ")(length)}a`,
  "underlines": repeat("a\n=\n"),
  "bars": repeat("|"),
  "bars on lines": repeat("|\n"),
  "wide tables": (length) => `${repeat("|a")(length / 3)}\n${repeat("|-")(length / 3)}\n${repeat("|b")(length / 3)}`,
  "tables with short rows": (length) => `${"|a".repeat(60)}|\n${"|-".repeat(60)}|\n${repeat("|\n")(length)}`,
  "table heads without tables": repeat("a|b\n"),
  "table marks": repeat("|-|-|\n"),
  "formulas in tables": (length) => `|a|b|\n|-|-|\n${repeat("|$|x|$|b|\n")(length)}`,
  "dollars in tables": (length) => `|a|b|\n|-|-|\n${repeat("|$x|")(length)}`,
  "Chinese": repeat("注意：**这里"),
  "Chinese with marks of direction": repeat("**\u202e这**里\u2066"),
  "halves of characters": repeat("\ud83d"),
  "combining marks": repeat("a\u0301\u0300\u0302"),
  "zero bytes": repeat("\u0000"),
  "words": repeat("word "),
  "one word": repeat("a"),
  "marks of tasks": repeat("- [ ] [x] "),
};

function repeat(piece: string): (length: number) => string {
  return (length) => piece.repeat(Math.ceil(length / piece.length));
}

function nested(open: string, close: string): (length: number) => string {
  return (length) => {
    const depth = Math.floor(length / (open.length + close.length));
    return open.repeat(depth) + close.repeat(depth);
  };
}

function growing(mark: string, between: string): (length: number) => string {
  return (length) => {
    let text = "";
    for (let count = 1; text.length < length; count++) text += mark.repeat(count) + between;
    return text;
  };
}

function numbered(line: (number: number) => string): (length: number) => string {
  return (length) => {
    let text = "";
    for (let number = 0; text.length < length; number++) text += line(number);
    return text;
  };
}

function deeper(line: (depth: number) => string): (length: number) => string {
  return (length) => {
    let text = "";
    for (let depth = 0; text.length < length; depth++) text += line(depth);
    return text;
  };
}
