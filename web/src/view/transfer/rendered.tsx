/** Draws messages beside the page, for a share file: as the page shows them, with formulas set and code coloured. */
import { render } from "preact";

import type { Message } from "../../state/conversation";
import { words } from "../../words";
import { Markdown } from "../Markdown";

/** One element a message, in order, once nothing in them changes any more. They are not part of the document. */
export async function rendered(messages: readonly Message[]): Promise<HTMLElement[]> {
  const elements = messages.map((message) => {
    const element = document.createElement("article");
    render(<Shared message={message} />, element);
    return element;
  });
  await quiet(elements);
  return elements;
}

const CALM = 150; // ms without a change
const LIMIT = 5000; // ms; what is not set by then stays source text

function quiet(elements: readonly HTMLElement[]): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      observer.disconnect();
      clearTimeout(calm);
      clearTimeout(limit);
      resolve();
    };
    let calm = setTimeout(finish, CALM);
    const limit = setTimeout(finish, LIMIT);
    const observer = new MutationObserver(() => {
      clearTimeout(calm);
      calm = setTimeout(finish, CALM);
    });
    for (const element of elements) observer.observe(element, { childList: true, subtree: true, characterData: true });
  });
}

function Shared({ message }: { message: Message }) {
  const { message: texts, thought } = words.value;
  const { answer } = message;
  return (
    <>
      <h2>{message.role === "user" ? texts.you : texts.assistant}</h2>
      {message.attachments?.map((file) => (
        <details key={file.name}>
          <summary>{file.name}</summary>
          <pre>{file.text}</pre>
        </details>
      ))}
      {answer?.thought && (
        <details>
          <summary>{thought.title(answer.thoughtSeconds, answer.thoughtTokens)}</summary>
          <div class="prose">
            <Markdown text={answer.thought} streaming={false} />
          </div>
        </details>
      )}
      {message.role === "user" ? (
        <p class="said">{message.text}</p>
      ) : (
        <div class="prose">
          <Markdown text={message.text} streaming={false} />
        </div>
      )}
    </>
  );
}
