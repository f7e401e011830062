/** Server-sent events, split anywhere. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { events, type ServerEvent } from "./sse";

async function read(bytes: Uint8Array, cuts: number[]): Promise<ServerEvent[]> {
  const places = [0, ...cuts.toSorted((a, b) => a - b), bytes.length];
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      for (let i = 1; i < places.length; i++) controller.enqueue(bytes.slice(places[i - 1], places[i]));
      controller.close();
    },
  });
  const found: ServerEvent[] = [];
  for await (const event of events(new Response(stream))) found.push(event);
  return found;
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

const MIXED = encode(
  "\ufeff: a comment\r\n\r\nevent: one\r\ndata: {\"ü\":\"数学 🙂\"}\r\n\r\ndata:first\ndata: second\n\n" +
    "id: 7\rretry: 10\rdata:  two spaces\r\revent: nameless\n\ndata\n\n: ping\n\ndata: cut off",
);
const EXPECTED: ServerEvent[] = [
  { event: "one", data: '{"ü":"数学 🙂"}' },
  { data: "first\nsecond" },
  { data: " two spaces" },
  { data: "" },
];

test("a stream reads the same however it is split in two", async () => {
  for (let cut = 0; cut <= MIXED.length; cut++) expect(await read(MIXED, [cut])).toEqual(EXPECTED);
});

test("a stream reads the same byte by byte", async () => {
  const everywhere = Array.from({ length: MIXED.length }, (_, at) => at);
  expect(await read(MIXED, everywhere)).toEqual(EXPECTED);
});

test("any data in any frames reads back, split anywhere", async () => {
  const end = fc.constantFrom("\n", "\r\n", "\r");
  const line = fc.string({ unit: "grapheme" }).filter((text) => !/[\r\n]/u.test(text));
  const cuts = fc.array(fc.nat(2000), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(line, { minLength: 1, maxLength: 3 }), { maxLength: 8 }), end, cuts, async (all, nl, at) => {
      const text = all.map((lines) => lines.map((each) => `data: ${each}${nl}`).join("") + nl).join(`: ping${nl}${nl}`);
      const bytes = encode(text);
      const found = await read(bytes, at.map((cut) => cut % (bytes.length + 1)));
      expect(found).toEqual(all.map((lines) => ({ data: lines.join("\n") })));
    }),
  );
});

test("bytes that are no event are heard: the connection is alive", async () => {
  let heard = 0;
  for await (const _ of events(new Response(": ping\n\n"), () => heard++)) throw new Error("no event was sent");
  expect(heard).toBeGreaterThan(0);
});

test("who stops reading closes the connection", async () => {
  let isClosed = false;
  const stream = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(encode("data: 1\n\ndata: 2\n\n")),
    cancel: () => void (isClosed = true),
  });
  for await (const event of events(new Response(stream))) {
    expect(event.data).toBe("1");
    break;
  }
  expect(isClosed).toBe(true);
});
