/**
 * How many tokens the conversation and the draft have, and whether they fit. The server counts; until it has, the number is
 * called an estimate, and nothing is warned of.
 */
import { useEffect } from "preact/hooks";

import "../style/meter.css";
import type { Attachment } from "../state/conversation";
import { measure, meter } from "../state/meter";
import { words } from "../words";

export interface Draft {
  text: string;
  attachments: Attachment[];
}

const TIGHT = 256; // tokens that are left: hardly enough for a thought

/** Whether the draft does not fit, so that sending it would be refused. */
export function isTooLong(): boolean {
  const now = meter.value;
  return now !== null && now.exact && now.used >= now.limit;
}

export function Meter({ draft }: { draft: Draft }) {
  const { meter: texts } = words.value.extras;
  const { text, attachments } = draft;
  useEffect(() => measure({ text, attachments }), [text, attachments]);
  const now = meter.value;
  if (!now) {
    return (
      <span class="meter" title={texts.unknownWhy}>
        {texts.unknown}
      </span>
    );
  }
  const { used, limit, exact } = now;
  const left = limit - used;
  const state = left <= 0 ? "over" : left < TIGHT ? "tight" : "fits";
  return (
    <span class="meter" data-state={state} title={texts.description(used, limit)}>
      <meter aria-label={texts.label} min={0} max={limit} value={Math.min(used, limit)} />
      <span>{exact ? texts.used(used, limit) : texts.about(used, limit)}</span>
      <output class="meter-warning">
        {exact && state === "over" ? texts.over(1 - left) : state === "tight" && texts.tight(left)}
      </output>
    </span>
  );
}
