/** The nouns between the server and the page. Only `api/` knows how the server spells them. */

export interface Usage {
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
  thoughtTokens: number;
}

/** The server's own measurements of one answer. */
export interface Timings {
  queueMs: number;
  promptMs: number;
  promptPerSecond: number;
  predictedMs: number;
  predictedPerSecond: number;
}

/** The limits that a busy server lowered for one answer; they apply instead of the settings. */
export interface Degraded {
  maxTokens?: number;
  thoughtBudget?: number;
  temperature?: number;
}

export type FinishReason = "stop" | "length" | "cancelled" | "error";

/** Why the server closed a thought. */
export type ThoughtClosed = "budget" | "repetition" | "request";

export interface TokenLogprob {
  token: string;
  logprob: number;
  rivals: { token: string; logprob: number }[];
}

/** What the user may set for an answer; what is absent is left to the server. */
export interface AnswerSettings {
  system?: string;
  temperature?: number;
  topP?: number;
  maxTokens?: number;
  seed?: number;
  thinking?: boolean;
  thoughtBudget?: number;
  logprobs?: number; // rivals per token
  schema?: unknown; // a JSON Schema that the answer follows
}

export interface Turn {
  role: "user" | "assistant";
  text: string;
  thought?: string;
}

export interface AnswerRequest {
  turns: Turn[];
  settings: AnswerSettings;
  /** The last turn is an answer that goes on. */
  continues?: boolean;
}

/** What went wrong, in a form that the page can put into words. */
export interface Fault {
  kind:
    | "unreachable" // no connection, or it broke
    | "unauthorized" // 401: a key is needed, or it is wrong
    | "rate" // 429
    | "overloaded" // 503, 529
    | "loading" // 503 while the model is loading or the engine starts again
    | "context" // the conversation does not fit
    | "refused" // another 4xx: the message says what is wrong
    | "failed"; // 5xx
  message: string; // the server's own
  retryAfter?: number; // seconds
  final?: boolean; // the server said that trying again is of no use
  code?: string; // the server's own
  param?: string; // the field of the request that is wrong
  room?: { limit: number; used: number; atLeast: boolean }; // with "context": tokens
}

/** What happens to one answer, in order. `number` is the server's number of the event, to attach again after it. */
export type AnswerEvent = { number?: number } & (
  | { type: "accepted"; responseId?: string }
  | { type: "queued"; position: number }
  | { type: "reading"; processed: number; total: number; cached: number }
  // `tokens`: those of the answer until here
  | { type: "thought"; text: string; tokens?: number; logprobs?: TokenLogprob[] }
  | { type: "text"; text: string; tokens?: number; logprobs?: TokenLogprob[] }
  | { type: "thoughtClosed"; why: ThoughtClosed }
  | {
      type: "ended";
      finishReason: FinishReason;
      usage?: Usage;
      timings?: Timings;
      thoughtClosed?: ThoughtClosed;
      degraded?: Degraded;
    }
);

export interface ServerStatus {
  state: "loading" | "ready" | "restarting" | "draining" | "failed" | "stopped";
  loading?: number; // 0 to 1
  model: string;
  version: string;
  contextLength?: number;
  running: number;
  waiting: number;
  kvUsed?: number; // 0 to 1
  tokensPerSecond?: number; // of all answers together
  tokensPerSecondForYou?: number; // of one more answer
  thinks?: boolean;
  advice?: { temperature?: number; topP?: number }; // the publisher's
}
