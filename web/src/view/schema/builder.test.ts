import * as fc from "fast-check";
import { expect, it } from "vitest";

import { description, FIELD_TYPES, fieldProblems, fieldsOf, schemaOf, type Field } from "./builder";
import { readSchema } from "./check";
import { EXAMPLES } from "./examples";

const field = (name: string, more: Partial<Field> = {}): Field => ({
  name,
  type: "string",
  required: true,
  choices: [],
  ...more,
});

it("a field needs a name of its own, and a choice something to choose from", () => {
  const fields = [field("a"), field(" "), field("a "), field("b", { type: "enum" })];
  expect([...fieldProblems(fields)]).toEqual([
    [1, "noName"],
    [2, "sameName"],
    [3, "noChoices"],
  ]);
});

it("fields become a closed object with bounded texts", () => {
  expect(schemaOf([field("city"), field("size", { type: "enum", choices: ["s", "l", "s"], required: false })])).toEqual(
    {
      type: "object",
      properties: { city: { type: "string", maxLength: 400 }, size: { enum: ["s", "l"] } },
      required: ["city"],
      additionalProperties: false,
    },
  );
});

it("any fields without problems make an accepted schema, and come back from it", () => {
  const fields = fc.uniqueArray(
    fc.record({
      name: fc.string({ minLength: 1 }).map((name) => name.trim() || "x"),
      type: fc.constantFrom(...FIELD_TYPES),
      required: fc.boolean(),
      choices: fc.uniqueArray(fc.string(), { minLength: 1, maxLength: 3 }),
    }),
    { selector: (each) => each.name, minLength: 1, maxLength: 6 },
  );
  fc.assert(
    fc.property(fields, (drawn) => {
      const clean = drawn.map((each) => ({ ...each, choices: each.type === "enum" ? each.choices : [] }));
      const read = readSchema(JSON.stringify(schemaOf(clean)));
      expect(read).toHaveProperty("schema");
      if (!("schema" in read)) return;
      const byName = (list: Field[] | null) => list?.toSorted((a, b) => (a.name < b.name ? -1 : 1));
      expect(byName(fieldsOf(read.schema))).toEqual(byName(clean));
    }),
  );
});

it("a schema that says more than fields can is not turned into fields", () => {
  expect(EXAMPLES.map((example) => fieldsOf(example.schema))).toEqual([null, null, null, null]);
  expect(fieldsOf({ type: "object", properties: { a: { type: "object" } } })).toBeNull();
  expect(fieldsOf({ type: "string" })).toBeNull();
});

it("the description names every field with its kind", () => {
  expect(description(EXAMPLES[1]?.schema ?? {})).toBe(
    'title (string), priority ("low" | "normal" | "high"), done (boolean), steps (list of string)',
  );
});
