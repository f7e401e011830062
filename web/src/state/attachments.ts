/** Puts attached files into the text that the model reads. */
import type { Attachment } from "./conversation";

/** The text, and after it each file as a fenced block below its name. */
export function withAttachments(text: string, attachments: readonly Attachment[]): string {
  return [text, ...attachments.map(fenced)].filter((part) => part !== "").join("\n\n");
}

/** The fence is longer than any run of backticks in the file, so that the file cannot end it. */
function fenced({ name, text }: Attachment): string {
  const longest = Math.max(0, ...[...text.matchAll(/`+/gu)].map(([run]) => run.length));
  const fence = "`".repeat(Math.max(3, longest + 1));
  const body = text.endsWith("\n") || text === "" ? text : `${text}\n`;
  return `${oneLine(name)}:\n${fence}${language(name)}\n${body}${fence}`;
}

/** A name cannot begin a line of its own. */
function oneLine(name: string): string {
  return name.replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, " ").trim() || "file";
}

function language(name: string): string {
  return /\.([a-z0-9+#-]{1,15})$/iu.exec(name)?.[1]?.toLowerCase() ?? "";
}
