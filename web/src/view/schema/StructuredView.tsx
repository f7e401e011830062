/** A structured answer as a readable form that fills while the JSON arrives; the JSON itself is one click away. */
import { useMemo, useState } from "preact/hooks";

import "../../style/structured.css";
import { dialogWords } from "../../words/dialogs";
import { copyText } from "../copy";
import { Prose } from "../Prose";
import { partialJson } from "./partial";
import { shapeOf } from "./shape";
import { ShapeView } from "./ShapeView";

interface Props {
  text: string;
  schema: unknown;
  complete: boolean;
  onClose?: () => void;
}

export function StructuredView({ text, schema, complete }: Props) {
  const { schema: texts } = dialogWords.value;
  const [raw, showRaw] = useState(false);
  const value = useMemo(() => partialJson(text), [text]);
  const shape = useMemo(() => (value === undefined ? null : shapeOf(value, schema)), [value, schema]);
  const isWhole = useMemo(() => isJson(text), [text]);
  if (!shape) return <Prose text={text} streaming={!complete} />;
  return (
    <div class="structured" role="group" aria-label={texts.title} aria-busy={!complete}>
      {raw ? <pre>{isWhole ? JSON.stringify(value, null, 2) : text}</pre> : <ShapeView shape={shape} />}
      {complete && !isWhole && <p class="structured-broken">{texts.broken}</p>}
      <footer>
        <button type="button" class="link" aria-pressed={raw} onClick={() => showRaw(!raw)}>
          {raw ? texts.form : texts.raw}
        </button>
        {raw && <CopyRaw text={text} />}
      </footer>
    </div>
  );
}

function CopyRaw({ text }: { text: string }) {
  const [copied, setCopied] = useState(false);
  const { schema } = dialogWords.value;
  return (
    <button type="button" class="link" onClick={() => void copyText(text).then(setCopied)}>
      {copied ? schema.copied : schema.copy}
    </button>
  );
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
