/**
 * Reads a JSON Schema that somebody typed or pasted, and says what is wrong with it and where. The server has the last
 * word: it knows more keywords. What is checked here are the mistakes that people make, so that they learn of them while
 * they type.
 */

export type JsonObject = { [key: string]: unknown };

export type Problem =
  | { kind: "json"; message: string } // not JSON: the browser's message says where
  | { kind: "large"; limit: number } // characters
  | { kind: "notObject" } // the whole is no schema
  | { kind: "wrong"; where: string; keyword: string; wanted: Wanted }
  | { kind: "type"; where: string; found: string; similar: string | null }
  | { kind: "missing"; where: string; name: string } // required, but no property
  | { kind: "unsupported"; where: string; keyword: string };

export type Wanted = "object" | "list" | "texts" | "schema" | "types";

export const MAX_CHARACTERS = 131_072; // the server's limit of a grammar
const MAX_DEPTH = 100;
const TYPES = ["string", "number", "integer", "boolean", "object", "array", "null"];
const SIMILAR: Record<string, string> = {
  str: "string",
  text: "string",
  int: "integer",
  float: "number",
  double: "number",
  bool: "boolean",
  list: "array",
  dict: "object",
  map: "object",
  none: "null",
};
// Keywords that the server refuses, since they cannot guide an answer token by token.
const UNSUPPORTED = [
  "not",
  "if",
  "then",
  "else",
  "uniqueItems",
  "contains",
  "dependentRequired",
  "dependentSchemas",
  "propertyNames",
  "unevaluatedProperties",
  "unevaluatedItems",
];
const OF_SCHEMAS = ["properties", "patternProperties", "$defs", "definitions"]; // name → schema
const LISTS = ["anyOf", "oneOf", "allOf", "prefixItems"];

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The schema, or the first problem. */
export function readSchema(text: string): { schema: JsonObject } | { problem: Problem } {
  if (text.length > MAX_CHARACTERS) return { problem: { kind: "large", limit: MAX_CHARACTERS } };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { problem: { kind: "json", message: error instanceof Error ? error.message : String(error) } };
  }
  if (!isObject(value) || Object.keys(value).length === 0) return { problem: { kind: "notObject" } };
  const problem = firstProblem(value, "", 0);
  return problem ? { problem } : { schema: value };
}

function firstProblem(schema: unknown, where: string, depth: number): Problem | null {
  if (typeof schema === "boolean") return null;
  if (!isObject(schema) || depth > MAX_DEPTH) return { kind: "wrong", where, keyword: "", wanted: "schema" };
  return (
    ofType(schema, where) ?? ofKeywords(schema, where) ?? ofRequired(schema, where) ?? ofChildren(schema, where, depth)
  );
}

function ofType(schema: JsonObject, where: string): Problem | null {
  if (schema.type === undefined) return null;
  const types: unknown[] = Array.isArray(schema.type) ? schema.type : [schema.type];
  if (types.length === 0) return { kind: "wrong", where, keyword: "type", wanted: "types" };
  const strange = types.find((type) => typeof type !== "string" || !TYPES.includes(type));
  if (strange === undefined) return null;
  const found = typeof strange === "string" ? strange : JSON.stringify(strange);
  return { kind: "type", where, found, similar: similarType(found) };
}

function similarType(found: string): string | null {
  const small = found.toLowerCase();
  return TYPES.find((type) => type === small) ?? (Object.hasOwn(SIMILAR, small) ? (SIMILAR[small] ?? null) : null);
}

function ofKeywords(schema: JsonObject, where: string): Problem | null {
  const refused = UNSUPPORTED.find((keyword) => Object.hasOwn(schema, keyword));
  if (refused) return { kind: "unsupported", where, keyword: refused };
  for (const keyword of OF_SCHEMAS)
    if (schema[keyword] !== undefined && !isObject(schema[keyword]))
      return { kind: "wrong", where, keyword, wanted: "object" };
  for (const keyword of [...LISTS, "enum"]) {
    const value = schema[keyword];
    if (value !== undefined && !(Array.isArray(value) && value.length > 0))
      return { kind: "wrong", where, keyword, wanted: "list" };
  }
  const required = schema.required;
  if (required !== undefined && !(Array.isArray(required) && required.every((name) => typeof name === "string")))
    return { kind: "wrong", where, keyword: "required", wanted: "texts" };
  return null;
}

/** With `additionalProperties: false`, a required name that is no property can never be given. */
function ofRequired(schema: JsonObject, where: string): Problem | null {
  if (schema.additionalProperties !== false || !Array.isArray(schema.required) || schema.patternProperties) return null;
  const known = isObject(schema.properties) ? schema.properties : {};
  const missing = (schema.required as string[]).find((name) => !Object.hasOwn(known, name));
  return missing === undefined ? null : { kind: "missing", where, name: missing };
}

function ofChildren(schema: JsonObject, where: string, depth: number): Problem | null {
  for (const [at, child] of childrenOf(schema, where)) {
    const problem = firstProblem(child, at, depth + 1);
    if (problem) return problem;
  }
  return null;
}

function childrenOf(schema: JsonObject, where: string): [string, unknown][] {
  const under = (name: string) => (where === "" ? name : `${where}.${name}`);
  const children: [string, unknown][] = [];
  for (const keyword of OF_SCHEMAS)
    for (const [name, child] of Object.entries(schema[keyword] ?? {}))
      children.push([under(`${keyword}.${name}`), child]);
  for (const keyword of LISTS)
    for (const [i, child] of ((schema[keyword] ?? []) as unknown[]).entries())
      children.push([under(`${keyword}[${i}]`), child]);
  for (const keyword of ["items", "additionalProperties"])
    if (schema[keyword] !== undefined) children.push([under(keyword), schema[keyword]]);
  return children;
}
