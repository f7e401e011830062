/**
 * Sends requests to the server that the page came from, below whatever path it has there, with the API key.
 *
 * The key is kept for the tab's session, and longer only if the user wishes.
 */
import { signal, type Signal } from "@preact/signals";
import { baseUri, readValue, writeValue } from "../store/place";
import { faultOfException, faultOfResponse, ServerFault } from "./fault";

export { ServerFault } from "./fault";

const KEY = "key";

export const apiKey: Signal<string> = signal(readValue("session", KEY) ?? readValue("local", KEY) ?? "");

let remembers = readValue("local", KEY) !== null;

apiKey.subscribe(keepKey);

/** Whether the key is kept after the tab has been closed. */
export function keyIsRemembered(): boolean {
  return remembers;
}

/** Keeps the key in this browser (true), or only as long as the tab is open. */
export function rememberKey(remember: boolean): void {
  remembers = remember;
  keepKey(apiKey.peek());
}

function keepKey(key: string): void {
  writeValue("session", KEY, key || null);
  writeValue("local", KEY, remembers && key ? key : null);
}

export interface Init {
  method?: "GET" | "POST" | "DELETE";
  json?: unknown; // the body
  signal?: AbortSignal;
  keepalive?: boolean; // goes on if the page closes
}

/**
 * The response to a request, once its headers are there.
 *
 * Throws ServerFault for a status that is not 2xx and where there is no connection, and AbortError if `signal` aborted.
 */
export async function request(path: string, init: Init = {}): Promise<Response> {
  const { json, ...rest } = init;
  const headers = new Headers({ Accept: "application/json, text/event-stream" });
  const key = apiKey.peek();
  if (key) headers.set("Authorization", `Bearer ${checked(key)}`);
  if (json !== undefined) headers.set("Content-Type", "application/json");
  const options: RequestInit = { cache: "no-store", method: json === undefined ? "GET" : "POST", ...rest, headers };
  if (json !== undefined) options.body = JSON.stringify(json);
  let response: Response;
  try {
    response = await fetch(new URL(path, baseUri()), options);
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw faultOfException(error);
  }
  if (!response.ok) throw await faultOfResponse(response);
  return response;
}

/** A header cannot have other characters, and `fetch` would blame the connection. */
function checked(key: string): string {
  if (/^[\x21-\x7e]+$/u.test(key)) return key;
  throw new ServerFault({ kind: "unauthorized", message: "The API key contains characters that no key has." }, 401);
}
