import * as fc from "fast-check";
import { describe, expect, it } from "vitest";

import { MAX_CHARACTERS, readSchema } from "./check";
import { EXAMPLES } from "./examples";

const problemOf = (schema: unknown) => {
  const read = readSchema(JSON.stringify(schema));
  return "problem" in read ? read.problem : null;
};

describe("a schema", () => {
  it.each(EXAMPLES.map((example) => [example.name, example.schema]))(
    "of the example %s is accepted",
    (_name, schema) => {
      expect(problemOf(schema)).toBeNull();
    },
  );

  it("with nested objects, references and lists of types is accepted", () => {
    const node = { type: ["object", "null"], properties: { next: { $ref: "#/$defs/node" } } };
    expect(
      problemOf({ $defs: { node }, anyOf: [{ $ref: "#/$defs/node" }, { type: "array", items: true }] }),
    ).toBeNull();
  });

  it("that is not JSON is reported with the browser's message", () => {
    expect(readSchema("{")).toMatchObject({
      problem: { kind: "json", message: expect.stringContaining("JSON") as string },
    });
  });

  it.each([
    ["a list", []],
    ["a number", 3],
    ["null", null],
    ["empty", {}],
  ])("that is %s is none", (_name, value) => {
    expect(problemOf(value)).toEqual({ kind: "notObject" });
  });

  it("that is too large is not even parsed", () => {
    expect(readSchema("[".repeat(MAX_CHARACTERS + 1))).toMatchObject({ problem: { kind: "large" } });
  });

  it.each([
    ["int", "integer"],
    ["String", "string"],
    ["constructor", null],
  ])("with the type %s gets the advice %s", (found, similar) => {
    expect(problemOf({ properties: { age: { type: found } } })).toEqual({
      kind: "type",
      where: "properties.age",
      found,
      similar,
    });
  });

  it("names the place and the keyword of a mistake", () => {
    expect(problemOf({ properties: { a: { items: { enum: [] } } } })).toEqual({
      kind: "wrong",
      where: "properties.a.items",
      keyword: "enum",
      wanted: "list",
    });
    expect(problemOf({ properties: [] })).toMatchObject({ keyword: "properties", wanted: "object" });
    expect(problemOf({ required: "name" })).toMatchObject({ keyword: "required", wanted: "texts" });
    expect(problemOf({ anyOf: [{}, 3] })).toMatchObject({ where: "anyOf[1]", wanted: "schema" });
    expect(problemOf({ properties: { a: { not: {} } } })).toEqual({
      kind: "unsupported",
      where: "properties.a",
      keyword: "not",
    });
  });

  it("cannot require what it forbids", () => {
    expect(problemOf({ properties: { a: {} }, required: ["b"], additionalProperties: false })).toEqual({
      kind: "missing",
      where: "",
      name: "b",
    });
  });

  it("of any shape is read without an exception", () => {
    fc.assert(fc.property(fc.json(), (text) => void readSchema(text)));
    expect(readSchema(`${'{"items":'.repeat(5000)}1${"}".repeat(5000)}`)).toHaveProperty("problem");
  });
});
