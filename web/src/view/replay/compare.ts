/** Compares an answer with its replay, thought first, and knows which answers can be replayed at all. */
import type { Answer, Message } from "../../state/conversation";
import { firstDifference, type Difference } from "./difference";

export type Comparison =
  | { kind: "same"; characters: number } // that were compared
  | { kind: "different"; where: "thought" | "text"; difference: Difference };

/** An answer that did not end by itself is compared as far as it goes. */
export function compare(first: Message, again: Message): Comparison {
  const isCut = first.answer?.state !== "done";
  const [thought, text] = [first.answer?.thought ?? "", first.text];
  const inText = isCut && text === "" ? "" : again.text.slice(0, isCut ? text.length : undefined);
  const inThought = (again.answer?.thought ?? "").slice(0, isCut && text === "" ? thought.length : undefined);
  const early = firstDifference(thought, inThought);
  if (early) return { kind: "different", where: "thought", difference: early };
  const late = firstDifference(text, inText);
  if (late) return { kind: "different", where: "text", difference: late };
  return { kind: "same", characters: [...thought, ...text].length };
}

/**
 * Why its seed and settings alone do not repeat an answer. In a vote, the random numbers also depend on the place among the
 * answers, so only the first one is what a single request gives.
 */
export function obstacle(answer: Answer | undefined): "continued" | "vote" | null {
  if (answer?.continued) return "continued";
  return answer?.vote && answer.vote.index > 0 ? "vote" : null;
}
