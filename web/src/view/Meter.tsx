/**
 * How many tokens the conversation and the draft have, and whether they fit. The server counts; until it has, the number is
 * called an estimate, and nothing is warned of.
 */
import { useEffect } from "preact/hooks";

import "../style/meter.css";
import { path, type Attachment } from "../state/conversation";
import { current } from "../state/conversations";
import { measure, meter } from "../state/meter";
import { status } from "../state/server";
import { settings } from "../state/settings";
import { words } from "../words";

export interface Draft {
  text: string;
  attachments: Attachment[];
}

const TIGHT = 256; // tokens that are left: hardly enough for a thought

export function Meter({ draft }: { draft: Draft }) {
  const { meter: texts } = words.value.extras;
  const { text, attachments } = draft;
  const last = path(current.value).at(-1)?.id;
  const { system } = settings.value;
  // Also counted again: another conversation or answer, another prompt, a server that can count now.
  useEffect(() => measure({ text, attachments }), [text, attachments, last, system, status.value?.contextLength]);
  const now = meter.value;
  if (!now) {
    return (
      <span class="meter" title={texts.unknownWhy}>
        {texts.unknown}
      </span>
    );
  }
  const { used, limit, exact } = now;
  if (!last && !text && attachments.length === 0) return null; // nothing to count yet
  const left = limit - used;
  const state = left <= 0 ? "over" : left < TIGHT ? "tight" : "fits";
  return (
    <span class="meter" data-state={state} title={texts.description(used, limit)}>
      <span class="meter-track" aria-hidden="true">
        <span style={{ width: `${Math.min(100, (100 * used) / limit)}%` }} />
      </span>
      <span>{exact ? texts.used(used, limit) : texts.about(used, limit)}</span>
      <output class="meter-warning">
        {exact && state === "over" ? texts.over(1 - left) : state === "tight" && texts.tight(left)}
      </output>
    </span>
  );
}
