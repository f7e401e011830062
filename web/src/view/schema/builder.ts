/** Makes a JSON Schema from a list of fields, and a list of fields from a schema that such a list can express. */
import { isObject, type JsonObject } from "./check";

export const FIELD_TYPES = ["string", "integer", "number", "boolean", "enum", "list"] as const;
export type FieldType = (typeof FIELD_TYPES)[number];

export interface Field {
  name: string;
  type: FieldType;
  required: boolean;
  choices: string[]; // of the type "enum"
}

export type FieldProblem = "noName" | "sameName" | "noChoices";

const MAX_LENGTH = 400; // of a text: a small model may not find the end of an unbounded one
const MAX_ITEMS = 20;

/** What is wrong with each field, by its index. */
export function fieldProblems(fields: readonly Field[]): Map<number, FieldProblem> {
  const problems = new Map<number, FieldProblem>();
  const names = new Set<string>();
  for (const [i, field] of fields.entries()) {
    const name = field.name.trim();
    if (name === "") problems.set(i, "noName");
    else if (names.has(name)) problems.set(i, "sameName");
    else if (field.type === "enum" && field.choices.length === 0) problems.set(i, "noChoices");
    names.add(name);
  }
  return problems;
}

/** The schema of an object with these fields, which have no problems. */
export function schemaOf(fields: readonly Field[]): JsonObject {
  return {
    type: "object",
    // fromEntries defines properties, so that a field may be called __proto__.
    properties: Object.fromEntries(fields.map((field) => [field.name.trim(), schemaOfField(field)])),
    required: fields.filter((field) => field.required).map((field) => field.name.trim()),
    additionalProperties: false,
  };
}

function schemaOfField(field: Field): JsonObject {
  if (field.type === "string") return { type: "string", maxLength: MAX_LENGTH };
  if (field.type === "enum") return { enum: [...new Set(field.choices)] };
  if (field.type === "list")
    return { type: "array", items: { type: "string", maxLength: MAX_LENGTH }, maxItems: MAX_ITEMS };
  return { type: field.type };
}

/** The fields of a schema; null if the schema has more to say than fields can, so that nothing is lost by editing. */
export function fieldsOf(schema: JsonObject): Field[] | null {
  if (!isObject(schema.properties)) return null;
  const required = Array.isArray(schema.required) ? (schema.required as unknown[]) : [];
  const fields: Field[] = [];
  for (const [name, child] of Object.entries(schema.properties)) {
    const field = isObject(child) ? fieldOf(name, child, required.includes(name)) : null;
    if (!field) return null;
    fields.push(field);
  }
  const ordered = (each: JsonObject) => ({
    ...each,
    required: Array.isArray(each.required) ? each.required.toSorted() : null,
  });
  return same(ordered(schemaOf(fields)), ordered(schema)) ? fields : null;
}

function fieldOf(name: string, schema: JsonObject, required: boolean): Field | null {
  if (Array.isArray(schema.enum)) {
    const choices = schema.enum.filter((choice): choice is string => typeof choice === "string");
    return choices.length === schema.enum.length ? { name, type: "enum", required, choices } : null;
  }
  const type = schema.type === "array" ? "list" : schema.type;
  const known = FIELD_TYPES.find((each) => each === type);
  return known ? { name, type: known, required, choices: [] } : null;
}

/** Whether two JSON values are equal; the order of keys does not matter. */
function same(a: unknown, b: unknown): boolean {
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((each, i) => same(each, b[i]));
  if (!isObject(a) || !isObject(b)) return a === b;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && same(a[key], b[key]));
}

/** A sentence that tells the model about the wanted form; the model itself never sees the schema. */
export function description(schema: JsonObject): string {
  const properties = isObject(schema.properties) ? Object.entries(schema.properties) : [];
  return properties.map(([name, child]) => `${name} (${kindOf(child)})`).join(", ");
}

function kindOf(schema: unknown): string {
  if (!isObject(schema)) return "any";
  if (Array.isArray(schema.enum)) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  if (schema.type === "array") return `list of ${kindOf(schema.items)}`;
  if (isObject(schema.properties)) return `object: ${description(schema)}`;
  return typeof schema.type === "string" ? schema.type : "any";
}
