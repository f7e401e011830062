/** Tells a screen reader each phase of an answer, and the answer once, when it is complete: never token by token. */
import { useEffect, useRef, useState } from "preact/hooks";

import { live } from "../state/generation";
import { current } from "../state/conversations";
import { words } from "../words";
import { phaseName } from "./Phase";

export function Announcer() {
  const w = words.value;
  const here = current.value.messages;
  const now = [...live.value.values()].find((each) => here[each.messageId]);
  const [said, say] = useState("");
  const watched = useRef<string | undefined>(undefined);
  useEffect(() => {
    if (now) {
      watched.current = now.messageId;
      say(phaseName(w, now));
      return;
    }
    const finished = watched.current === undefined ? undefined : here[watched.current];
    watched.current = undefined;
    if (finished) say(finished.answer?.state === "done" ? `${w.phase.done} ${finished.text}` : w.phase.stopped);
  }, [now?.messageId, now?.phase, now?.position]);
  return (
    <div class="unseen" aria-live="polite" aria-atomic="true">
      {said}
    </div>
  );
}
