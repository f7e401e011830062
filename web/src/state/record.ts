/** How an answer that runs is written into its message: while it runs, and at its end. */
import type { AnswerEvent, Fault, ThoughtClosed, TokenLogprob } from "../api/types";
import type { Answer, AnswerState, Message } from "./conversation";

export type Ended = Extract<AnswerEvent, { type: "ended" }>;

/** All that has come so far. */
export interface SoFar {
  text: string;
  thought: string;
  responseId: string | undefined;
  lastEvent: number;
  thoughtSeconds: number;
  thoughtTokens: number;
  thoughtClosed: ThoughtClosed | undefined;
  logprobs: readonly TokenLogprob[];
  /** The page did not see all of it as it came. */
  hadGap: boolean;
}

/** The message with what has come so far: text, and the number of its last event, together. */
export function recorded(message: Message, soFar: SoFar): Message {
  const { responseId: _id, lastEvent: _event, fault: _fault, ...rest } = message.answer as Answer;
  const { responseId, lastEvent, thoughtSeconds, thoughtTokens, thoughtClosed, logprobs } = soFar;
  return {
    ...message,
    text: soFar.text,
    answer: {
      ...rest,
      thought: soFar.thought,
      ...(responseId === undefined ? {} : { responseId, lastEvent }),
      ...(thoughtSeconds > 0 ? { thoughtSeconds, thoughtTokens } : {}),
      ...(thoughtClosed ? { thoughtClosed } : {}),
      ...(logprobs.length > 0 ? { logprobs: [...logprobs] } : {}),
    },
  };
}

/** The message at its end. A broken one can be attached to again as long as the server has it. */
export function finished(
  message: Message,
  state: Exclude<AnswerState, "running">,
  soFar: SoFar,
  fault: Fault | undefined,
  ended: Ended | undefined,
): Message {
  const whole = recorded(message, soFar);
  const { responseId, lastEvent, finishReason: _reason, ...answer } = whole.answer as Answer;
  const mayGoOn = state === "broken" && responseId !== undefined;
  return {
    ...whole,
    answer: {
      ...answer,
      ...(ended ? measured(answer, ended, soFar.hadGap) : {}),
      state,
      ...(mayGoOn ? { responseId, lastEvent: lastEvent ?? -1 } : {}),
      ...(fault ? { fault } : {}),
      ...(state === "stopped" ? { finishReason: "cancelled" as const } : {}),
    },
  };
}

/** What the server has measured. A continued answer adds up; a thought that was not watched takes its share of the time. */
function measured(answer: Omit<Answer, "responseId">, ended: Ended, hadGap: boolean): Partial<Answer> {
  const { usage, timings, finishReason, degraded } = ended;
  const before = answer.continued ? answer.usage : undefined;
  const total = usage && {
    ...usage,
    completionTokens: usage.completionTokens + (before?.completionTokens ?? 0),
    thoughtTokens: usage.thoughtTokens + (before?.thoughtTokens ?? 0),
  };
  const share = usage && usage.completionTokens > 0 ? usage.thoughtTokens / usage.completionTokens : undefined;
  const isGuess = hadGap && answer.thought !== "" && !answer.continued;
  return {
    finishReason,
    ...(total ? { usage: total } : {}),
    ...(total && total.thoughtTokens > 0 ? { thoughtTokens: total.thoughtTokens } : {}),
    ...(timings ? { timings } : {}),
    ...(degraded ? { degraded } : {}),
    ...(isGuess && timings && share !== undefined ? { thoughtSeconds: (timings.predictedMs * share) / 1000 } : {}),
  };
}
