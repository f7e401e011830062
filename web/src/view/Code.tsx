/** A block of code: its language, a button that copies it, colours once it is complete. It scrolls in a box of its own. */
import { useEffect, useRef, useState } from "preact/hooks";

import { highlight, languageName, type Piece } from "../text/highlight";
import { visible } from "../text/visible";
import { words } from "../words";
import { CopyButton } from "./CopyButton";
import { useScrollable } from "./scrollable";

interface Props {
  language: string;
  text: string;
  /** Whether its end has arrived: code that grows is not coloured again and again. */
  closed: boolean;
}

export function Code({ language, text, closed }: Props) {
  const code = text.endsWith("\n") ? text.slice(0, -1) : text;
  const pieces = useColours(code, language, closed);
  const box = useRef<HTMLPreElement>(null);
  useScrollable(box);
  const name = languageName(language);
  return (
    <div class="code">
      <div class="code-head">
        <span>{name}</span>
        <CopyButton text={code} />
      </div>
      <pre ref={box} data-scrolls role="group" aria-label={words.value.text.code(name)}>
        <code>{pieces ? pieces.map(coloured) : visible(code)}</code>
      </pre>
    </div>
  );
}

function coloured(piece: Piece) {
  return typeof piece === "string" ? visible(piece) : <span class={piece.classes}>{piece.children.map(coloured)}</span>;
}

interface Coloured {
  code: string;
  language: string;
  pieces: Piece[] | null;
}

function useColours(code: string, language: string, closed: boolean): Piece[] | null {
  const [made, setMade] = useState<Coloured | null>(null);
  useEffect(() => {
    if (!closed || !language) return undefined;
    let wanted = true;
    highlight(code, language).then(
      (pieces) => wanted && setMade({ code, language, pieces }),
      () => undefined, // the server was away: code without colours is complete all the same
    );
    return () => {
      wanted = false;
    };
  }, [code, language, closed]);
  return made && closed && made.code === code && made.language === language ? made.pieces : null;
}
