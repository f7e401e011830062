/** Says that a busy server lowered the limits of an answer, and which. */
import type { Degraded as Limits } from "../api/types";
import { words } from "../words";

export function Degraded({ limits }: { limits: Limits | undefined }) {
  if (!limits) return null;
  const w = words.value.degraded;
  const { maxTokens, thoughtBudget, temperature } = limits;
  const parts = [
    maxTokens === undefined ? "" : w.maxTokens(maxTokens),
    thoughtBudget === undefined ? "" : w.thoughtBudget(thoughtBudget),
    temperature === undefined ? "" : w.temperature(temperature),
  ];
  return (
    <div class="note" role="note">
      <span>{w.note(parts.filter(Boolean))}</span>
    </div>
  );
}
