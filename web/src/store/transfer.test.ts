/** Files of conversations: written, read back, and not trusted. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { newConversation, path, titleOf, withMessage, type Conversation, type Message } from "../state/conversation";
import { fromJson, toCurl, toJson, toMarkdown, toPython, TransferFault } from "./transfer";

function conversation(): Conversation {
  const answer = {
    state: "done" as const,
    thought: "Hm.",
    settings: { seed: 7, temperature: 0.6, system: "It's short." },
    responseId: "resp_secret",
    lastEvent: 9,
    usage: { promptTokens: 1, cachedTokens: 0, completionTokens: 3, thoughtTokens: 1 },
  };
  const messages: Message[] = [
    { id: "1", parent: null, role: "user", createdAt: 1, text: "What's `x`?", attachments: [{ name: "a.py", text: "x = 1" }] },
    { id: "2", parent: "1", role: "assistant", createdAt: 2, text: "It is 1.", answer },
    { id: "3", parent: "1", role: "assistant", createdAt: 3, text: "One.", answer: { state: "running", thought: "", settings: {} } },
  ];
  return messages.reduce(withMessage, { ...newConversation("c", 0), title: "Mine", pinned: true });
}

test("what is written reads back, under new ids, and nothing runs in it", () => {
  const [read] = fromJson(toJson([conversation()]));
  expect(read).toMatchObject({ title: "Mine", pinned: true });
  expect(read?.id).not.toBe("c");
  const shown = path(read as Conversation);
  expect(shown.map(({ text }) => text)).toEqual(["What's `x`?", "One."]);
  expect(shown[1]?.answer?.state).toBe("broken");
  const other = Object.values(read?.messages ?? {}).find(({ text }) => text === "It is 1.");
  expect(other?.answer).toEqual({
    state: "done",
    thought: "Hm.",
    settings: { seed: 7, temperature: 0.6, system: "It's short." },
    usage: { promptTokens: 1, cachedTokens: 0, completionTokens: 3, thoughtTokens: 1 },
  });
});

test.each([
  ["not json", "json"],
  ["[]", "format"],
  ['{"format": "other"}', "format"],
  ['{"format": "antiphon-conversations", "version": 2, "conversations": []}', "version"],
  ['{"format": "antiphon-conversations", "version": 1, "conversations": [{"messages": {"a": {}}}]}', "message"],
  ['{"format": "antiphon-conversations", "version": 1, "conversations": [{"messages": {"a": {"role": "system", "text": ""}}}]}', "message"],
])("%s is refused: %s", (text, kind) => {
  expect(() => fromJson(text)).toThrowError(TransferFault);
  expect(() => fromJson(text)).toThrowError(expect.objectContaining({ kind }));
});

test("a tree that leads back to itself, to nowhere or to strange names becomes a tree", () => {
  const text = `{"format": "antiphon-conversations", "version": 1, "conversations": [{"messages": {
    "a": {"role": "user", "text": "a", "parent": "b"}, "b": {"role": "user", "text": "b", "parent": "a"},
    "c": {"role": "user", "text": "c", "parent": "gone"}, "__proto__": {"role": "user", "text": "d", "parent": "__proto__"}}}]}`;
  const [read] = fromJson(text);
  const messages = Object.values(read?.messages ?? {});
  expect(messages.map((message) => message.text).toSorted()).toEqual(["a", "b", "c", "d"]);
  for (const message of messages) {
    const seen = new Set<string>();
    for (let at: string | null = message.id; at !== null; at = read?.messages[at]?.parent ?? null) {
      expect(seen.has(at)).toBe(false);
      seen.add(at);
    }
  }
});

test("whatever a file has, it is read or refused", () => {
  const message = fc.object({ key: fc.constantFrom("role", "text", "parent", "answer", "attachments", "createdAt", "state", "settings"), maxDepth: 4 });
  fc.assert(
    fc.property(fc.dictionary(fc.string(), message), fc.anything(), (messages, chosen) => {
      const text = JSON.stringify({ format: "antiphon-conversations", version: 1, conversations: [{ messages, chosen }] }, (_, value: unknown) =>
        typeof value === "bigint" ? String(value) : value,
      );
      try {
        for (const read of fromJson(text)) titleOf(read);
      } catch (error) {
        expect(error).toBeInstanceOf(TransferFault);
      }
    }),
  );
});

test("Markdown has the thought as a quotation and the files", () => {
  const shown = { ...conversation(), chosen: { "": "1", "1": "2" } };
  expect(toMarkdown(shown)).toBe(
    "# Mine\n\n## User\n\nWhat's `x`?\n\na.py:\n```py\nx = 1\n```\n\n## Assistant\n\n> Hm.\n\nIt is 1.\n",
  );
});

test("curl: the request in single quotes, which a shell leaves alone", () => {
  const command = toCurl(conversation(), "2");
  expect(command).toContain("curl 'http://localhost/v1/chat/completions'");
  const quoted = /-d '([^]*)'$/u.exec(command)?.[1]?.replaceAll(`'\\''`, "'") ?? "";
  expect(JSON.parse(quoted)).toEqual({
    messages: [
      { role: "system", content: "It's short." },
      { role: "user", content: "What's `x`?\n\na.py:\n```py\nx = 1\n```" },
    ],
    temperature: 0.6,
    seed: 7,
  });
  expect(command).not.toContain("Bearer secret");
});

test("Python: OpenAI's client, with the server's own fields as extra_body", () => {
  const changed = conversation();
  const settings = changed.messages["2"]?.answer?.settings;
  if (settings) settings.thinking = false;
  const code = toPython(changed, "2");
  expect(code).toContain('base_url="http://localhost/v1"');
  expect(code).toContain('extra_body={"enable_thinking": False},');
  expect(code).toContain("seed=7,");
  expect(code).not.toContain("undefined");
});
