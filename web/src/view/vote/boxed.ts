/**
 * The boxed answer of a text exactly as the server finds it, in `text/boxed.py`: a vote must not be counted in two ways.
 *
 * One pass: the braces inside a box must balance, and an escaped one, `\{`, does not count.
 */

const SIGN = /\\boxed\s*\{|\\[\s\S]|[{}]/gu;

/** The content of the box that was opened last, among those that were closed; null if there is none. */
export function boxedAnswer(text: string): string | null {
  const opened: (number | null)[] = []; // where the content of each open box begins; null for any other brace
  let last = -1;
  let answer: string | null = null;
  for (const sign of text.matchAll(SIGN)) {
    if (sign[0].startsWith("\\boxed")) opened.push(sign.index + sign[0].length);
    else if (sign[0] === "{") opened.push(null);
    else if (sign[0] === "}") {
      const start = opened.pop();
      if (start === undefined || start === null || start <= last) continue;
      last = start;
      answer = text.slice(start, sign.index);
    }
  }
  return answer;
}
