/**
 * Writes an AnswerRequest as the server's fields, for /v1/responses and /v1/chat/completions.
 *
 * Every field is named here: whatever else the page keeps in its objects is never sent. An earlier thought is only sent with
 * the answer that goes on.
 */
import type { Json } from "./json";
import type { AnswerRequest, AnswerSettings, Turn } from "./types";

/** The fields of /v1/responses that decide on the prompt. */
export function promptBody(request: AnswerRequest): Json {
  const { settings } = request;
  return {
    input: items(request),
    ...(settings.system ? { instructions: wellFormed(settings.system) } : {}),
    ...(request.continues ? { continue_final_message: true } : {}),
    ...thinking(settings),
  };
}

/** The body of POST /v1/responses. */
export function responseBody(request: AnswerRequest): Json {
  const { settings } = request;
  return {
    ...promptBody(request),
    ...sampling(settings),
    ...(settings.maxTokens === undefined ? {} : { max_output_tokens: settings.maxTokens }),
    ...(settings.logprobs === undefined
      ? {}
      : { top_logprobs: settings.logprobs, include: ["message.output_text.logprobs"] }),
    ...(settings.schema === undefined
      ? {}
      : { text: { format: { type: "json_schema", name: "answer", schema: settings.schema } } }),
    stream: true,
    background: true,
    store: true,
    return_progress: true,
  };
}

/** The body of POST /v1/chat/completions. */
export function chatBody(request: AnswerRequest, n = 1): Json {
  const { settings } = request;
  return {
    messages: messages(request),
    ...(request.continues ? { continue_final_message: true } : {}),
    ...thinking(settings),
    ...sampling(settings),
    ...(settings.maxTokens === undefined ? {} : { max_completion_tokens: settings.maxTokens }),
    ...(settings.logprobs === undefined ? {} : { logprobs: true, top_logprobs: settings.logprobs }),
    ...(settings.schema === undefined
      ? {}
      : { response_format: { type: "json_schema", json_schema: { name: "answer", schema: settings.schema } } }),
    ...(n > 1 ? { n } : {}),
    stream: true,
    stream_options: { include_usage: true },
    return_progress: true,
  };
}

function sampling(settings: AnswerSettings): Json {
  return {
    ...(settings.temperature === undefined ? {} : { temperature: settings.temperature }),
    ...(settings.topP === undefined ? {} : { top_p: settings.topP }),
    ...(settings.seed === undefined ? {} : { seed: settings.seed }),
  };
}

/** A model that does not think refuses `enable_thinking: true`, so it is only ever switched off. */
function thinking(settings: AnswerSettings): Json {
  return {
    ...(settings.thinking === false ? { enable_thinking: false } : {}),
    ...(settings.thinking === false || settings.thoughtBudget === undefined
      ? {}
      : { thinking_token_budget: settings.thoughtBudget }),
  };
}

function items({ turns, continues }: AnswerRequest): Json[] {
  return turns.flatMap((turn, index): Json[] => {
    const text = { type: "message", role: turn.role, content: wellFormed(turn.text) };
    if (!continues || index < turns.length - 1 || !turn.thought) return [text];
    const thought = { type: "reasoning", content: [{ type: "reasoning_text", text: wellFormed(turn.thought) }] };
    return turn.text === "" ? [thought] : [thought, text];
  });
}

function messages({ turns, continues, settings }: AnswerRequest): Json[] {
  const system = settings.system ? [{ role: "system", content: wellFormed(settings.system) }] : [];
  return [...system, ...turns.map((turn, index) => message(turn, continues === true && index === turns.length - 1))];
}

function message(turn: Turn, goesOn: boolean): Json {
  if (!goesOn || !turn.thought) return { role: turn.role, content: wellFormed(turn.text) };
  const thought = { role: turn.role, reasoning_content: wellFormed(turn.thought) };
  return turn.text === "" ? thought : { ...thought, content: wellFormed(turn.text) };
}

/** Half of a surrogate pair, which a cut may leave behind, is no character: the server refuses it. */
function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, "\ufffd");
}
