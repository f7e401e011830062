/** Copies a text and says for a moment that it did. */
import { useEffect, useState } from "preact/hooks";

import { words } from "../words";
import { copyText } from "./copy";
import { ToolButton } from "./ToolButton";
import { toast } from "./ui";

export function CopyButton({ text }: { text: string }) {
  const w = words.value;
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return undefined;
    const timer = window.setTimeout(() => setDone(false), 1600);
    return () => window.clearTimeout(timer);
  }, [done]);
  async function copy(): Promise<void> {
    if (await copyText(text)) setDone(true);
    else toast(w.message.copyFailed);
  }
  return (
    <ToolButton icon={done ? "check" : "copy"} label={done ? w.message.copied : w.message.copy} onClick={() => void copy()} />
  );
}
