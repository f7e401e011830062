/** Attached text files as small labels, with their size in tokens; in the composer they can be taken away. */
import { useEffect, useState } from "preact/hooks";

import { countTokens } from "../api/tokens";
import type { Attachment } from "../state/conversation";
import { words } from "../words";
import { Icon } from "./icons";

interface Props {
  attachments: readonly Attachment[];
  onRemove?: (index: number) => void;
}

export function Chips({ attachments, onRemove }: Props) {
  if (!attachments.length) return null;
  return (
    <div class="chips">
      {attachments.map((attachment, index) => (
        <Chip key={`${index} ${attachment.name}`} attachment={attachment} {...(onRemove ? { onRemove: () => onRemove(index) } : {})} />
      ))}
    </div>
  );
}

function Chip({ attachment, onRemove }: { attachment: Attachment; onRemove?: () => void }) {
  const w = words.value;
  const count = useCount(attachment);
  return (
    <span class={onRemove ? "chip" : "chip kept"}>
      <Icon name="file" />
      <span class="name">{attachment.name}</span>
      <span class="size">{count === undefined ? "…" : w.tokens(count)}</span>
      {onRemove ? (
        <button type="button" class="tool" aria-label={w.composer.detach(attachment.name)} onClick={onRemove}>
          <Icon name="close" />
        </button>
      ) : null}
    </span>
  );
}

const counts = new WeakMap<Attachment, number>();

/** The server's count; undefined until it is there. */
function useCount(attachment: Attachment): number | undefined {
  const [, arrived] = useState(0);
  useEffect(() => {
    if (counts.has(attachment)) return;
    countTokens({ turns: [{ role: "user", text: attachment.text }], settings: {} }).then(
      (count) => {
        counts.set(attachment, count);
        arrived(count);
      },
      () => undefined, // not known now: the label stays without a number
    );
  }, [attachment]);
  return counts.get(attachment);
}
