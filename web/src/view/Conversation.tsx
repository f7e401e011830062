/** The messages of the open conversation, from the first to the last, or what stands there before the first. */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import { path, type Message } from "../state/conversation";
import { live, type Live } from "../state/generation";
import { current } from "../state/conversations";
import { AnswerMessage } from "./AnswerMessage";
import { Empty } from "./Empty";
import { toEnd, toStart, useFollowing } from "./follow";
import { UserMessage } from "./UserMessage";
import { words } from "../words";

const AT_FIRST = 16; // messages, enough for any window
const MORE = 24;

export function Conversation() {
  const messages = path(current.value);
  const running = live.value;
  const frame = useRef<HTMLDivElement>(null);
  const { from, top } = useOlder(current.value.id, messages.length);
  useFollowing(frame);
  useLayoutEffect(() => {
    if (messages.length) toEnd();
    else toStart();
  }, [current.value.id]);
  return (
    <div ref={frame} data-follow={messages.length ? "yes" : undefined} class={messages.length ? "column messages" : "column empty"}>
      {messages.length ? null : <Empty />}
      {from > 0 ? <div ref={top} class="older" aria-hidden="true" /> : null}
      {messages.slice(from).map((message, index) => (
        <Item
          key={message.id}
          message={message}
          now={running.get(message.id)}
          near={from + index >= messages.length - 2}
          last={from + index === messages.length - 1}
        />
      ))}
    </div>
  );
}

interface ItemProps {
  message: Message;
  now: Live | undefined;
  near: boolean;
  last: boolean;
}

/** Drawn again only when something of its own changes: it reads a signal, so its properties are compared. */
function Item({ message, now, near, last }: ItemProps) {
  void words.value;
  const kind = message.answer ? "answer" : "user";
  return (
    <article class={`message ${kind}${near ? "" : " far"}${last ? " last" : ""}`} data-id={message.id}>
      {message.answer ? (
        <AnswerMessage message={message} answer={message.answer} now={now} />
      ) : (
        <UserMessage message={message} />
      )}
    </article>
  );
}

/** Draws the last messages first, and earlier ones when the reader comes near them. What is drawn once stays. */
function useOlder(conversation: string, count: number) {
  const first = useMemo(() => Math.max(0, count - AT_FIRST), [conversation]);
  const [more, setMore] = useState({ conversation, count: 0 });
  const from = Math.max(0, first - (more.conversation === conversation ? more.count : 0));
  const top = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!top.current) return undefined;
    const seen = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) show();
      },
      { rootMargin: "1500px" },
    );
    seen.observe(top.current);
    return () => seen.disconnect();
  }, [conversation, from]);

  function show(): void {
    const height = document.documentElement.scrollHeight;
    const at = window.scrollY;
    setMore({ conversation, count: first - from + MORE });
    if (ANCHORS) return;
    requestAnimationFrame(() => window.scrollTo(0, at + document.documentElement.scrollHeight - height));
  }
  return { from, top };
}

/** Browsers with scroll anchoring keep what is in sight where it is by themselves. */
const ANCHORS = CSS.supports("overflow-anchor", "auto");
