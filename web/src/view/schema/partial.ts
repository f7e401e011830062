/** Reads JSON that is still being written, so that a form can fill while an answer arrives. */

/**
 * The value of the text, completed where it ends too early: open texts, lists and objects are closed, and a name without a
 * value is left out. undefined if there is no value yet or the text is not JSON.
 */
export function partialJson(text: string): unknown {
  const whole = parsed(text);
  if (whole !== undefined) return whole;
  const { closers, inText, escaped, cut } = scan(text);
  const ended = inText ? `${escaped ? text.slice(0, escaped.at) : text}"` : text;
  return parsed(ended + closers) ?? parsed(text.slice(0, cut.at) + cut.closers);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

interface Scan {
  closers: string; // what closes all that is open at the end
  inText: boolean;
  escaped: { at: number } | null; // where an escape that is not complete begins
  cut: { at: number; closers: string }; // after the last complete entry, and what closes all that is open there
}

function scan(text: string): Scan {
  let closers = "";
  let inText = false;
  let escaped: Scan["escaped"] = null;
  let cut = { at: 0, closers: "" };
  for (let i = 0; i < text.length; i++) {
    const sign = text[i];
    if (inText) {
      if (sign === '"') inText = false;
      else if (sign === "\\") {
        const length = text[i + 1] === "u" ? 6 : 2;
        if (i + length > text.length) escaped = { at: i };
        i += length - 1;
      }
    } else if (sign === '"') inText = true;
    else if (sign === "{" || sign === "[") {
      closers = (sign === "{" ? "}" : "]") + closers;
      cut = { at: i + 1, closers };
    } else if (sign === "}" || sign === "]") {
      closers = closers.slice(1);
      cut = { at: i + 1, closers };
    } else if (sign === ",") cut = { at: i, closers };
  }
  return { closers, inText, escaped, cut };
}
