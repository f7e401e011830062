/**
 * A server for tests, behind `fetch`: background responses with numbered events that any reader gets again, and the ways in
 * which a server and a network fail.
 */
import { vi } from "vitest";
import { streamed } from "./stream";

export interface Asked {
  method: string;
  path: string;
  body: Record<string, unknown>;
  headers: Headers;
}

type Event = Record<string, unknown>;

interface Response_ {
  events: Event[];
  isOver: boolean;
  isCancelled: boolean;
  news: Set<() => void>;
}

let serial = 0; // a page of an earlier test may still tidy up: ids are never the same

export class FakeServer {
  readonly asked: Asked[] = [];
  readonly responses = new Map<string, Response_>();
  /** What the next requests get instead of an answer. */
  readonly refusals: (() => Response)[] = [];
  statusRefusal: (() => Response) | undefined;
  isDown = false;
  openStreams = 0;
  /** Cuts a stream after so many bytes. */
  cuts: number[] = [];
  /** In how many bytes a stream is divided. */
  chunk = Infinity;
  /** The next answer fails after its thought. */
  fails = false;
  answer = { thought: ["Let ", "me ", "see. "], text: ["The ", "answer ", "is ", "42."] };
  /** Each event waits for it. */
  /** What a busy server lowers. */
  degraded: Record<string, number> | undefined;
  pace: () => Promise<void> = async () => undefined;
  state: Record<string, unknown> = { state: "ready", model: "tiny", version: "1", context_length: 2048, running: 0, waiting: 0 };

  constructor() {
    vi.stubGlobal("fetch", (url: URL | string, init: RequestInit = {}) => this.#fetch(new URL(url), init));
  }

  requests(path: RegExp, method = "POST"): Asked[] {
    return this.asked.filter((each) => each.method === method && path.test(each.path));
  }

  /** It is started again: what it had stored is gone. */
  restart(): void {
    for (const response of this.responses.values()) response.isCancelled = true;
    this.responses.clear();
    this.isDown = false;
  }

  async #fetch(url: URL, init: RequestInit): Promise<Response> {
    await Promise.resolve();
    init.signal?.throwIfAborted();
    if (this.isDown) throw new TypeError("fetch failed");
    const path = url.pathname.replace("/chat/", "") + url.search;
    const body = typeof init.body === "string" ? (JSON.parse(init.body) as Record<string, unknown>) : {};
    const asked = { method: init.method ?? "GET", path, body, headers: new Headers(init.headers) };
    if (path === "v1/status") return this.statusRefusal?.() ?? Response.json(this.state);
    this.asked.push(asked);
    const refuse = asked.method === "POST" && !path.endsWith("cancel") ? this.refusals.shift() : undefined;
    if (refuse) return refuse();
    if (path === "v1/responses") return this.#create(body, init.signal ?? undefined);
    if (path === "v1/chat/completions") return this.#chat(body, init.signal ?? undefined);
    if (path === "v1/responses/input_tokens") return Response.json({ input_tokens: JSON.stringify(body["input"]).length });
    return this.#stored(asked, url, init.signal ?? undefined);
  }

  #create(body: Record<string, unknown>, signal?: AbortSignal): Response {
    const id = `resp_${++serial}`;
    const response: Response_ = { events: [], isOver: false, isCancelled: false, news: new Set() };
    this.responses.set(id, response);
    void this.#generate(id, response, body);
    return this.#follow(response, 0, signal);
  }

  async #generate(id: string, response: Response_, body: Record<string, unknown>): Promise<void> {
    const add = async (type: string, more: Event = {}): Promise<void> => {
      if (response.isOver) return;
      response.events.push({ type, sequence_number: response.events.length, ...more });
      for (const wake of response.news) wake();
      await this.pace();
    };
    const thinks = body["enable_thinking"] !== false && body["thinking_token_budget"] !== 0 && !hasText(body);
    await add("response.created", { response: { id, status: "queued" } });
    await add("response.progress", { queue: { position: 1 } });
    await add("response.in_progress", { response: { id, status: "in_progress" } });
    await add("response.progress", { prompt_progress: { total: 9, cache: 4, processed: 9, time_ms: 3 } });
    for (const delta of thinks ? this.answer.thought : []) {
      if (!response.isCancelled) await add("response.reasoning_text.delta", { output_index: 0, delta });
    }
    if (this.fails) {
      this.fails = false;
      await add("response.failed", { response: { id, status: "failed", error: { code: "internal_error", message: "The engine failed." } } });
      response.isOver = true;
    }
    for (const delta of this.answer.text) {
      if (!response.isCancelled) await add("response.output_text.delta", { output_index: 1, delta, logprobs: [] });
    }
    const status = response.isCancelled ? "cancelled" : "completed";
    const last = response.isCancelled ? "response.incomplete" : "response.completed";
    const { degraded } = this;
    await add(last, { response: { id, status, usage: USAGE, timings: TIMINGS, ...(degraded ? { degraded } : {}) } });
    response.isOver = true;
    for (const wake of response.news) wake();
  }

  #follow(response: Response_, first: number, signal?: AbortSignal): Response {
    let next = first;
    return this.#stream(signal, async () => {
      while (next >= response.events.length) {
        if (response.isOver) return undefined;
        await new Promise<void>((resolve) => response.news.add(resolve));
      }
      const event = response.events[next++] as Event;
      return `event: ${String(event["type"])}\ndata: ${JSON.stringify(event)}\n\n`;
    });
  }

  #chat(body: Record<string, unknown>, signal?: AbortSignal): Response {
    const n = Number(body["n"] ?? 1);
    const chunks: Event[] = [];
    const add = (index: number, delta: Event, reason: string | null = null): void => {
      chunks.push({ choices: [{ index, delta, logprobs: null, finish_reason: reason }] });
    };
    for (let index = 0; index < n; index++) for (const text of this.answer.thought) add(index, { reasoning_content: text });
    for (const text of this.answer.text) for (let index = 0; index < n; index++) add(index, { content: text });
    for (let index = 0; index < n; index++) add(index, {}, "stop");
    chunks.push({ choices: [], usage: CHAT_USAGE, timings: TIMINGS });
    const lines = [...chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`), "data: [DONE]\n\n"];
    return this.#stream(signal, async () => {
      await this.pace();
      return lines.shift();
    });
  }

  #stream(signal: AbortSignal | undefined, next: () => Promise<string | undefined>): Response {
    this.openStreams++;
    return streamed(signal, next, {
      cut: this.cuts.shift() ?? Infinity,
      chunk: this.chunk,
      isDown: () => this.isDown,
      closed: () => this.openStreams--,
    });
  }

  async #stored({ method, path }: Asked, url: URL, signal?: AbortSignal): Promise<Response> {
    const [, id = "", action] = /^v1\/responses\/([^/?]+)(\/cancel)?/u.exec(path) ?? [];
    const response = this.responses.get(id);
    if (!response) return refusal(404, { message: `There is no response '${id}'.`, code: "previous_response_not_found" })();
    if (method === "DELETE") this.responses.delete(id);
    if (action) {
      response.isCancelled = true;
      return Response.json({ id, status: "cancelled" });
    }
    if (method !== "GET") return Response.json({ id, deleted: true });
    const after = url.searchParams.get("starting_after");
    return this.#follow(response, after === null ? 0 : Number(after) + 1, signal);
  }
}

export function refusal(status: number, error: object, headers: Record<string, string> = {}): () => Response {
  return () => Response.json({ error }, { status, headers });
}

function hasText(body: Record<string, unknown>): boolean {
  const last = (body["input"] as { type: string; role: string }[]).at(-1);
  return body["continue_final_message"] === true && last?.type === "message";
}

const USAGE = {
  input_tokens: 9,
  input_tokens_details: { cached_tokens: 4 },
  output_tokens: 8,
  output_tokens_details: { reasoning_tokens: 3 },
};
const CHAT_USAGE = {
  prompt_tokens: 9,
  prompt_tokens_details: { cached_tokens: 4 },
  completion_tokens: 8,
  completion_tokens_details: { reasoning_tokens: 3 },
};
const TIMINGS = { queue_ms: 1, prompt_ms: 2, prompt_per_second: 3, predicted_ms: 8000, predicted_per_second: 1 };
