/**
 * One answer while this tab runs it: what has come so far, and how it is shown and stored.
 *
 * Text and the number of the event that brought it change together, in one step that nothing can interrupt: a copy taken at
 * any moment can be attached to the server's answer again without a character lost or doubled.
 */
import { batch } from "@preact/signals";
import type { AnswerEvent, AnswerRequest, Fault, ThoughtClosed, TokenLogprob } from "../api/types";
import { withChange, type Answer, type AnswerState, type Id, type Message } from "./conversation";
import * as documents from "./documents";
import { hideLive, showLive, type Live, type Phase } from "./live";
import { Pieces } from "./pieces";
import { finished, recorded, type Ended, type SoFar } from "./record";
import { Speed, TokenCount } from "./speed";
import { Stopwatch } from "./stopwatch";

const STATES = { stop: "done", length: "done", cancelled: "stopped", error: "broken" } as const;

export class Run {
  readonly id: Id;
  readonly conversation: Id;
  readonly request: AnswerRequest;
  readonly text: Pieces;
  readonly thought: Pieces;
  /** How it ended; "handed over" if it goes on without this object. */
  readonly outcome: Promise<AnswerState | "handed over">;
  responseId: string | undefined;
  lastEvent = -1;
  isAccepted: boolean; // the server has begun with it
  hasNews: boolean; // something of the answer has come from this response
  isOver = false;
  connection: AbortController | undefined;
  #settle: (state: AnswerState | "handed over") => void = () => undefined;
  #live: Live;
  readonly #logprobs: TokenLogprob[];
  readonly #thinking: Stopwatch;
  #thoughtTokens: number;
  #thoughtClosed: ThoughtClosed | undefined;
  #count: TokenCount;
  #hadGap: boolean; // the page did not see all of it as it came
  readonly #speed = new Speed();

  constructor(conversation: Id, message: Message, request: AnswerRequest) {
    const answer = message.answer as Answer;
    const at = Date.now();
    this.id = message.id;
    this.conversation = conversation;
    this.request = request;
    this.text = new Pieces(message.text);
    this.thought = new Pieces(answer.thought);
    this.responseId = answer.responseId;
    this.lastEvent = answer.lastEvent ?? -1;
    this.#hadGap = answer.responseId !== undefined;
    this.#count = new TokenCount(!this.#hadGap);
    this.isAccepted = this.#hadGap;
    this.hasNews = this.#hadGap && this.hasText;
    this.#logprobs = [...(answer.logprobs ?? [])];
    this.#thinking = new Stopwatch(answer.thoughtSeconds);
    this.#thoughtTokens = answer.thoughtTokens ?? 0;
    this.#thoughtClosed = answer.thoughtClosed;
    this.outcome = new Promise((resolve) => (this.#settle = resolve));
    const { shown: text } = this.text;
    const { shown: thought } = this.thought;
    this.#live = { messageId: this.id, phase: "connecting", startedAt: at, phaseStartedAt: at, tokens: 0, text, thought };
    documents.begin(this.id, conversation);
    showLive(this.#live);
  }

  get hasText(): boolean {
    return this.text.all !== "" || this.thought.all !== "";
  }

  /** Takes in an event; one that is known already changes nothing. Returns whether it ended the answer. */
  apply(event: AnswerEvent): boolean {
    if (event.number !== undefined && event.number <= this.lastEvent) return false;
    switch (event.type) {
      case "accepted":
        this.responseId = event.responseId;
        this.isAccepted = true;
        this.enter("waiting");
        this.store();
        void documents.flush(); // a page that is loaded again finds it
        break;
      case "queued":
        this.enter("waiting", { position: event.position });
        break;
      case "reading":
        this.enter("reading", { reading: { processed: event.processed, total: event.total, cached: event.cached } });
        break;
      case "thought":
      case "text":
        this.#grow(event);
        break;
      case "thoughtClosed":
        this.#thoughtClosed ??= event.why; // after "Answer now" the server names its budget
        break;
      case "ended":
        this.#end(event);
        return true;
    }
    if (event.number !== undefined) this.lastEvent = event.number;
    return false;
  }

  enter(phase: Phase, more: Pick<Live, "position" | "reading" | "retryAt" | "fault"> = {}): void {
    if (this.isOver) return;
    const { messageId, startedAt, tokens, tokensPerSecond, text, thought } = this.#live;
    const phaseStartedAt = phase === this.#live.phase ? this.#live.phaseStartedAt : Date.now();
    const speed = tokensPerSecond === undefined ? {} : { tokensPerSecond };
    this.#live = { messageId, phase, startedAt, phaseStartedAt, tokens, text, thought, ...speed, ...more };
    showLive(this.#live);
  }

  /** The server does not have the answer any more. */
  forget(): void {
    this.responseId = undefined;
    this.isAccepted = false;
    this.lastEvent = -1;
    this.#count = new TokenCount(true);
  }

  /** Some events came later than the server made them. */
  noteGap(): void {
    this.#hadGap = true;
    this.#speed.reset();
  }

  /** Writes what has come so far into the conversation, which is saved soon. */
  store(): void {
    if (this.isOver) return;
    documents.changeQuietly(this.conversation, (all) => withChange(all, this.id, (message) => recorded(message, this.#soFar)));
  }

  /** Ends it with the text so far. */
  finish(state: Exclude<AnswerState, "running">, fault?: Fault, ended?: Ended): void {
    if (this.isOver) return;
    this.#thinking.stop();
    if (this.connection && state !== "stopped") this.connection.abort();
    this.isOver = true;
    batch(() => {
      this.text.show();
      this.thought.show();
      documents.end(this.id);
      documents.changeIn(this.conversation, (all) =>
        withChange(all, this.id, (message) => finished(message, state, this.#soFar, fault, ended)),
      );
      hideLive(this.id);
    });
    this.#settle(state);
  }

  /** Lets go of it without ending it: another run or another tab goes on, `from` what has come or not. */
  handOver(from = true): void {
    if (this.isOver) return;
    this.#thinking.stop();
    if (from) this.store();
    this.isOver = true;
    this.connection?.abort();
    documents.running.delete(this.id);
    hideLive(this.id);
    this.#settle("handed over");
  }

  #grow(event: Extract<AnswerEvent, { type: "thought" | "text" }>): void {
    const isThought = event.type === "thought";
    const tokens = this.#count.of(event);
    this.hasNews = true;
    if (isThought) this.#thinking.start();
    else if (event.text !== "") this.#thinking.stop();
    if (isThought) this.#thoughtTokens += tokens;
    (isThought ? this.thought : this.text).add(event.text);
    if (event.logprobs && !isThought) this.#logprobs.push(...event.logprobs);
    const phase = isThought ? "thinking" : "answering";
    if (this.#live.phase !== phase) this.enter(phase);
    this.#live.tokens += tokens;
    const speed = this.#speed.add(tokens);
    if (speed !== undefined) this.#live.tokensPerSecond = speed;
  }

  #end(event: Ended): void {
    if (event.number !== undefined) this.lastEvent = event.number;
    this.#thoughtClosed ??= event.thoughtClosed;
    this.finish(STATES[event.finishReason], undefined, event);
  }

  get #soFar(): SoFar {
    return {
      text: this.text.all,
      thought: this.thought.all,
      responseId: this.responseId,
      lastEvent: this.lastEvent,
      thoughtSeconds: this.#thinking.seconds,
      thoughtTokens: this.#thoughtTokens,
      thoughtClosed: this.#thoughtClosed,
      logprobs: this.#logprobs,
      hadGap: this.#hadGap,
    };
  }
}
