/** Hands a file to the browser to be saved, and names it. */

const LONGEST = 60; // characters of the title that go into a name

/** A name that every file system takes: the title's letters and digits, the day, the extension. */
export function fileName(title: string, at: Date, extension: string): string {
  const words = title
    .normalize("NFC")
    .replace(/[^\p{L}\p{M}\p{N}]+/gu, "-")
    .replace(/^-+|-+$/gu, "");
  const day = [at.getFullYear(), at.getMonth() + 1, at.getDate()]
    .map((part) => String(part).padStart(2, "0"))
    .join("-");
  return `${[...words].slice(0, LONGEST).join("").replace(/-+$/u, "") || "antiphon"}-${day}.${extension}`;
}

const KEPT = 60_000; // ms for which the browser may read the file

export function save(content: string | Blob, name: string, type: string): void {
  const address = URL.createObjectURL(new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), KEPT);
}
