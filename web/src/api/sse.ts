/**
 * Reads server-sent events from a response, wherever the network splits it.
 *
 * Follows the HTML standard ("Interpreting an event stream"): lines end with LF, CR or CRLF; comments are skipped; an event
 * that the end of the stream cuts off is dropped.
 */

export interface ServerEvent {
  event?: string;
  data: string;
}

/** The events of a response. `heard` is called whenever bytes arrive, comments too. Ends early without harm. */
export async function* events(response: Response, heard?: () => void): AsyncGenerator<ServerEvent, void> {
  const reader = response.body?.getReader();
  if (!reader) return;
  const decoder = new TextDecoder(); // skips a byte order mark
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard?.();
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => undefined); // its connection is broken already
  }
}

export class EventParser {
  #rest = ""; // the beginning of a line
  #afterReturn = false; // the last character was CR: an LF that follows belongs to it
  #name = "";
  #data: string[] = [];

  /** The events that `text` completes. */
  *push(text: string): Generator<ServerEvent, void> {
    if (text === "") return;
    let start = this.#afterReturn && text.startsWith("\n") ? 1 : 0;
    this.#afterReturn = text.endsWith("\r");
    for (const end of text.matchAll(/\r\n|\r|\n/gu)) {
      if (end.index < start) continue;
      const event = this.#line(this.#rest + text.slice(start, end.index));
      this.#rest = "";
      start = end.index + end[0].length;
      if (event) yield event;
    }
    this.#rest += text.slice(start);
  }

  #line(line: string): ServerEvent | undefined {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#name = value;
    return undefined;
  }

  #dispatch(): ServerEvent | undefined {
    const name = this.#name;
    const data = this.#data;
    this.#name = "";
    this.#data = [];
    if (data.length === 0) return undefined;
    return name ? { event: name, data: data.join("\n") } : { data: data.join("\n") };
  }
}
