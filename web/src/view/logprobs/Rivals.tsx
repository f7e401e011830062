/** The panel beside a token: its probability, and what the model might have written instead. */
import { useId, useLayoutEffect, useRef } from "preact/hooks";

import type { TokenLogprob } from "../../api/types";
import { dialogWords } from "../../words/dialogs";
import { candidatesOf, visible } from "./shades";

const GAP = 6;

export function Rivals({ token, at }: { token: TokenLogprob; at: HTMLElement }) {
  const { tint } = dialogWords.value;
  const id = useId();
  const panel = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const element = panel.current;
    if (!element) return undefined;
    if (!element.matches(":popover-open")) element.showPopover();
    place(element, at);
    at.setAttribute("aria-describedby", id);
    return () => at.removeAttribute("aria-describedby");
  }, [at, token, id]);
  const candidates = candidatesOf(token);
  return (
    <div ref={panel} id={id} popover="manual" class="tint-rivals" role="tooltip">
      <table>
        <caption>{token.rivals.length ? tint.rivals : tint.noRivals}</caption>
        <tbody>
          {candidates.map((each) => (
            <tr key={each.token} class={each.drawn ? "drawn" : ""}>
              <th scope="row">{visible(each.token)}</th>
              <td>
                <span class="tint-track" aria-hidden="true">
                  <span style={{ width: `${Math.exp(each.logprob) * 100}%` }} />
                </span>
                <span class="tint-number">{tint.percent(Math.exp(each.logprob))}</span>
                {each.drawn && <span class="unseen"> {tint.drawn}</span>}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Below the token's first line, or above it where there is no room. */
function place(panel: HTMLElement, at: HTMLElement): void {
  const token = at.getClientRects()[0] ?? at.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = panel;
  const below = token.bottom + GAP + height <= innerHeight;
  panel.style.top = `${Math.max(GAP, below ? token.bottom + GAP : token.top - GAP - height)}px`;
  panel.style.left = `${Math.max(GAP, Math.min(token.left, innerWidth - width - GAP))}px`;
}
