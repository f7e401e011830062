/** Turns what went wrong with a request into a Fault: OpenAI's error bodies, other servers' errors, broken connections. */
import type { Fault } from "./types";

const MAX_BODY = 100_000; // characters; a proxy may send a whole page

export class ServerFault extends Error {
  override readonly name = "ServerFault";
  readonly fault: Fault;
  readonly status: number | undefined;
  /** The server said that the answer itself is over. */
  readonly ended: boolean;

  constructor(fault: Fault, status?: number, ended = false) {
    super(fault.message);
    this.fault = fault;
    this.status = status;
    this.ended = ended;
  }
}

interface ErrorBody {
  message?: unknown;
  code?: unknown;
  param?: unknown;
}

/** The fault of a response that is not 2xx. */
export async function faultOfResponse(response: Response): Promise<ServerFault> {
  const error = errorIn(await text(response));
  const fault = faultOf(error, response.status);
  const wait = retryAfter(response.headers);
  if (wait !== undefined) fault.retryAfter = wait;
  if (response.headers.get("x-should-retry") === "false") fault.final = true;
  return new ServerFault(fault, response.status);
}

/** The fault of an error object that came within a stream. `ended`: it ended the answer, not only the stream. */
export function faultOfEvent(error: unknown, ended: boolean): ServerFault {
  return new ServerFault(faultOf(isObject(error) ? error : {}, 500), undefined, ended);
}

/** The fault of an exception; anything but a ServerFault came from the connection. */
export function faultOfException(error: unknown): ServerFault {
  if (error instanceof ServerFault) return error;
  return new ServerFault({ kind: "unreachable", message: error instanceof Error ? error.message : String(error) });
}

function faultOf(error: ErrorBody, status: number): Fault {
  const message = typeof error.message === "string" && error.message ? error.message : `HTTP ${status}`;
  const code = typeof error.code === "string" ? error.code : undefined;
  const fault: Fault = { kind: kindOf(status, code), message };
  if (code !== undefined) fault.code = code;
  if (typeof error.param === "string") fault.param = error.param;
  const room = fault.kind === "context" ? roomIn(message) : undefined;
  return room ? { ...fault, room } : fault;
}

function kindOf(status: number, code: string | undefined): Fault["kind"] {
  if (code === "context_length_exceeded") return "context";
  if (code === "not_ready") return "loading";
  if (code === "server_overloaded") return "overloaded";
  if (status === 401) return "unauthorized";
  if (status === 429) return "rate";
  if (status === 503 || status === 529) return "overloaded";
  if (status === 502 || status === 504) return "unreachable"; // a proxy's word for it
  return status >= 500 ? "failed" : "refused";
}

/** "maximum context length is 2048 tokens. However, the prompt has at least 3000 tokens" */
function roomIn(message: string): Fault["room"] {
  const limit = /context length is ([\d,]+)/u.exec(message)?.[1];
  const used = /has (at least )?([\d,]+) tokens/u.exec(message);
  if (!limit || !used?.[2]) return undefined;
  const number = (digits: string): number => Number(digits.replaceAll(",", ""));
  return { limit: number(limit), used: number(used[2]), atLeast: used[1] !== undefined };
}

function errorIn(body: string): ErrorBody {
  try {
    const parsed: unknown = JSON.parse(body);
    if (!isObject(parsed)) return {};
    const error = parsed["error"];
    if (isObject(error)) return error;
    return { message: typeof error === "string" ? error : parsed["detail"] };
  } catch {
    return {};
  }
}

/** Seconds; `retry-after-ms` is more precise than `Retry-After`, which may also be a date. */
function retryAfter(headers: Headers): number | undefined {
  const milliseconds = Number(headers.get("retry-after-ms") ?? Number.NaN);
  if (Number.isFinite(milliseconds) && milliseconds >= 0) return milliseconds / 1000;
  const value = headers.get("retry-after");
  if (value === null || value.trim() === "") return undefined;
  const seconds = Number(value);
  if (Number.isFinite(seconds)) return Math.max(0, seconds);
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, (date - Date.now()) / 1000);
}

async function text(response: Response): Promise<string> {
  try {
    return (await response.text()).slice(0, MAX_BODY);
  } catch {
    return "";
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
