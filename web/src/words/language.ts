/** Which of the page's languages a reader gets. */

export type Language = "en" | "zh";

/** The language that the settings name or, failing that, the browser's first one that is known here. */
export function languageOf(wanted: "auto" | Language, browser: readonly string[]): Language {
  if (wanted !== "auto") return wanted;
  const known = browser.map((tag) => tag.toLowerCase().split("-")[0]).find((tag) => tag === "en" || tag === "zh");
  return known === "zh" ? "zh" : "en";
}
