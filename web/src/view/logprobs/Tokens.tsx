/**
 * The tokens of an answer, tinted, with the rivals of one of them in a panel: by pointing, by a tap, or with the keyboard.
 *
 * All tokens are one tab stop; the arrow keys move within. One listener serves them all, and they are drawn in parts, so that
 * thousands of tokens stay quick.
 */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import "../../style/tint.css";
import type { TokenLogprob } from "../../api/types";
import { dialogWords } from "../../words/dialogs";
import { Rivals } from "./Rivals";
import { partsOf, shadeOf } from "./shades";

const PART = 128; // tokens

interface Chosen {
  index: number;
  element: HTMLElement;
}

/** The token that an event is about. */
function tokenOf(target: EventTarget | null): Chosen | null {
  const element = target instanceof Element ? target.closest<HTMLElement>("[data-token]") : null;
  return element ? { element, index: Number(element.dataset.token) } : null;
}

/** Moves the focus by one token, by ten, or to an end; returns whether the key was meant. */
function moveFocus(box: HTMLElement, from: number, key: string, count: number): boolean {
  const to = {
    ArrowRight: from + 1,
    ArrowLeft: from - 1,
    ArrowDown: from + 10,
    ArrowUp: from - 10,
    Home: 0,
    End: count - 1,
  }[key];
  if (to === undefined) return false;
  const at = Math.max(0, Math.min(count - 1, to));
  box.querySelector<HTMLElement>(`[data-token="${at}"]`)?.focus();
  return true;
}

export function Tokens({ tokens }: { tokens: TokenLogprob[]; onClose?: () => void }) {
  const { tint } = dialogWords.value;
  const box = useRef<HTMLElement>(null);
  const [chosen, choose] = useState<Chosen | null>(null);
  const [stop, setStop] = useState(0); // the token that Tab comes to
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const listeners = new AbortController();
    const { signal } = listeners;
    const show = (event: Event) => choose(tokenOf(event.target));
    const hide = () => choose(null);
    element.addEventListener("pointerover", show, { signal });
    element.addEventListener("pointerleave", hide, { signal });
    element.addEventListener("click", show, { signal });
    element.addEventListener("focusout", hide, { signal });
    const focused = (event: Event) => {
      const token = tokenOf(event.target);
      choose(token);
      if (token) setStop(token.index);
    };
    const pressed = (event: KeyboardEvent) => {
      const token = tokenOf(event.target);
      if (event.key === "Escape") hide();
      else if (token && moveFocus(element, token.index, event.key, tokens.length)) event.preventDefault();
    };
    element.addEventListener("focusin", focused, { signal });
    element.addEventListener("keydown", pressed, { signal });
    addEventListener("scroll", hide, { signal, passive: true, capture: true });
    return () => listeners.abort();
  }, [tokens]);
  const spans = useMemo(() => <Parts tokens={tokens} />, [tokens]);
  useStop(box, stop, tokens);
  return (
    <div class="tint">
      <div class="tint-legend">
        <span>{tint.legend}</span>
        {tint.shades.map((text, shade) => (
          <span key={text} class="tint-key">
            <span data-shade={shade}>ab</span> {text}
          </span>
        ))}
      </div>
      <section ref={box} class="tint-text" aria-label={`${tint.legend}. ${tint.keys}`}>
        {spans}
      </section>
      {chosen && tokens[chosen.index] && <Rivals token={tokens[chosen.index] as TokenLogprob} at={chosen.element} />}
    </div>
  );
}

/** One token is a tab stop. The elements are many, so this changes two of them and draws nothing again. */
function useStop(box: { current: HTMLElement | null }, stop: number, tokens: unknown): void {
  useEffect(() => {
    const element = box.current?.querySelector<HTMLElement>(`[data-token="${stop}"]`);
    if (element) element.tabIndex = 0;
    return () => {
      if (element) element.tabIndex = -1;
    };
  }, [box, stop, tokens]);
}

const PER_STEP = 8; // parts, some thousand tokens
const REST = 16; // ms between two steps

/** The first parts at once, the others step by step: a browser that is busy with them still answers. */
function Parts({ tokens }: { tokens: TokenLogprob[] }) {
  // The same elements each time, so that what is there is not drawn again.
  const all = useMemo(() => {
    const starts = partsOf(tokens, PART);
    return starts.map((from, i) => <Part key={from} tokens={tokens.slice(from, starts[i + 1])} from={from} />);
  }, [tokens]);
  const [count, setCount] = useState(PER_STEP);
  useEffect(() => {
    if (count >= all.length) return undefined;
    const timer = setTimeout(() => setCount(count + PER_STEP), REST);
    return () => clearTimeout(timer);
  }, [count, all]);
  return <>{all.slice(0, count)}</>;
}

function Part({ tokens, from }: { tokens: TokenLogprob[]; from: number }) {
  return (
    <div class="tint-part">
      {tokens.map((token, i) => (
        <span key={i} data-token={from + i} data-shade={shadeOf(token.logprob)} tabIndex={-1}>
          {token.token}
        </span>
      ))}
    </div>
  );
}
