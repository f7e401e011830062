/** Copying a text, over plain http too, where a browser has no clipboard for scripts. */

/** Whether the text is in the clipboard now. Call it from what the reader did: browsers refuse anything else. */
export async function copyText(text: string): Promise<boolean> {
  try {
    if (window.isSecureContext && navigator.clipboard) {
      await navigator.clipboard.writeText(text);
      return true;
    }
  } catch {
    // Refused, for instance within a frame: the older way may still work.
  }
  return copyByCommand(text);
}

function copyByCommand(text: string): boolean {
  const focused = document.activeElement instanceof HTMLElement ? document.activeElement : null;
  const place = focused?.closest("dialog") ?? document.body; // beside an open dialog everything is inert
  const area = document.createElement("textarea");
  area.value = text;
  area.readOnly = true; // no keyboard opens on a phone
  area.style.position = "fixed";
  area.style.opacity = "0";
  place.append(area);
  const kept = ranges();
  area.select();
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    area.remove();
    restore(kept);
    focused?.focus({ preventScroll: true });
  }
}

/** What the reader has selected. */
function ranges(): Range[] {
  const selection = document.getSelection();
  return selection ? Array.from({ length: selection.rangeCount }, (_, index) => selection.getRangeAt(index)) : [];
}

function restore(kept: readonly Range[]): void {
  const selection = document.getSelection();
  selection?.removeAllRanges();
  for (const range of kept) selection?.addRange(range);
}
