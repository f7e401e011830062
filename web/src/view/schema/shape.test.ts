import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { humanized, shapeOf } from "./shape";

describe("the form of a value", () => {
  it("has the schema's titles and descriptions, else readable names", () => {
    const schema = { properties: { n: { title: "Name", description: "As in the passport" } } };
    expect(shapeOf({ n: "Ada", birth_date: null }, schema)).toEqual({
      kind: "object",
      fields: [
        { label: "Name", hint: "As in the passport", shape: { kind: "scalar", value: "Ada" } },
        { label: "Birth date", shape: { kind: "scalar", value: null } },
      ],
    });
  });

  it("shows flat objects in a table, with gaps where a field is absent", () => {
    expect(shapeOf([{ a: 1, b: 2 }, { a: 3 }], {})).toEqual({
      kind: "table",
      columns: ["A", "B"],
      rows: [
        [
          { kind: "scalar", value: 1 },
          { kind: "scalar", value: 2 },
        ],
        [{ kind: "scalar", value: 3 }, null],
      ],
    });
  });

  it("shows one object, and nested ones, as a list of forms", () => {
    expect(shapeOf([{ a: 1 }], {}).kind).toBe("list");
    expect(shapeOf([{ a: [1] }, { a: [2] }], {}).kind).toBe("list");
  });

  it("follows references and picks the alternative that fits", () => {
    const schema = {
      $defs: { color: { enum: ["red", "blue"] } },
      properties: { c: { $ref: "#/$defs/color" }, d: { anyOf: [{ type: "null" }, { $ref: "#/$defs/color" }] } },
    };
    const shape = shapeOf({ c: "red", d: "blue" }, schema);
    expect(shape).toMatchObject({
      fields: [{ shape: { choices: ["red", "blue"] } }, { shape: { choices: ["red", "blue"] } }],
    });
  });

  it("ends where references go in a circle or to another document", () => {
    expect(shapeOf(1, { $ref: "#" })).toEqual({ kind: "scalar", value: 1 });
    expect(shapeOf(1, { $ref: "https://example.org" })).toEqual({ kind: "scalar", value: 1 });
  });

  it("exists for any value and any schema", () => {
    fc.assert(fc.property(fc.jsonValue(), fc.jsonValue(), (value, schema) => void shapeOf(value, schema)));
    expect(() => shapeOf(JSON.parse(`${"[".repeat(3000)}${"]".repeat(3000)}`), {})).not.toThrow();
  });
});

it.each([
  ["birth_date", "Birth date"],
  ["birthDate", "Birth date"],
  ["URL", "URL"],
  ["userURL2", "User URL2"],
  ["a.b", "a.b"],
  ["名字", "名字"],
])("%s reads as %s", (name, label) => {
  expect(humanized(name)).toBe(label);
});
