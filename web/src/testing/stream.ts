/** A streamed response for tests: it is divided, and breaks, as the test wishes. */

interface Network {
  cut: number; // bytes after which the connection breaks
  chunk: number; // bytes of a part
  isDown: () => boolean;
  closed: () => void; // called once, however it ends
}

interface State {
  isOpen: boolean;
}

/** A stream of what `next` returns until it returns nothing. */
export function streamed(signal: AbortSignal | undefined, next: () => Promise<string | undefined>, network: Network): Response {
  const state: State = { isOpen: true };
  const close = (): void => {
    if (state.isOpen) network.closed();
    state.isOpen = false;
  };
  const stream = new ReadableStream<Uint8Array>({
    start: (controller) => {
      const fail = (error: unknown): void => {
        if (state.isOpen) controller.error(error);
        close();
      };
      const end = (): void => {
        if (state.isOpen) controller.close();
        close();
      };
      signal?.addEventListener("abort", () => fail(signal.reason));
      void send(controller, state, next, network).then(end, fail);
    },
    cancel: close,
  });
  return new Response(stream, { headers: { "content-type": "text/event-stream" } });
}

async function send(
  controller: ReadableStreamDefaultController<Uint8Array>,
  state: State,
  next: () => Promise<string | undefined>,
  { cut, chunk, isDown }: Network,
): Promise<void> {
  let left = cut;
  for (let text = await next(); text !== undefined && state.isOpen; text = await next()) {
    if (isDown()) throw new TypeError("network error");
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.length && state.isOpen; at += chunk) {
      const part = bytes.slice(at, Math.min(at + chunk, bytes.length, at + left));
      if (part.length > 0) controller.enqueue(part);
      left -= part.length;
      if (left > 0) continue;
      await new Promise((resolve) => setTimeout(resolve, 5)); // what was sent is read
      throw new TypeError("network error");
    }
  }
}
