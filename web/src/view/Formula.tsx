/** A formula: its source until KaTeX is there, and then KaTeX's elements, which Preact does not touch. */
import { useLayoutEffect, useRef } from "preact/hooks";

import { forget, show } from "../text/typeset";
import { useScrollable } from "./scrollable";

interface Props {
  tex: string;
  display: boolean;
  /** As it was written, with its delimiters. */
  source: string;
}

export function Formula(props: Props) {
  return props.display ? <DisplayFormula {...props} /> : <InlineFormula {...props} />;
}

function InlineFormula(props: Props) {
  const element = useFormula<HTMLSpanElement>(props);
  return <span class="formula" ref={element} />;
}

function DisplayFormula(props: Props) {
  const element = useFormula<HTMLSpanElement>(props);
  const box = useRef<HTMLSpanElement>(null);
  useScrollable(box);
  return (
    <span class="formula-box" ref={box} data-scrolls>
      <span class="formula" ref={element} />
    </span>
  );
}

function useFormula<T extends HTMLElement>({ tex, display, source }: Props) {
  const element = useRef<T>(null);
  useLayoutEffect(() => {
    const target = element.current;
    if (!target) return undefined;
    show(target, { tex, display, source });
    return () => forget(target);
  }, [tex, display, source]);
  return element;
}
