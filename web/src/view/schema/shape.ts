/** Turns a JSON value and the schema it was asked for with into a tree that reads like a form. Knows nothing of the DOM. */
import { isObject, type JsonObject } from "./check";

export type Shape =
  | { kind: "scalar"; value: string | number | boolean | null; choices?: unknown[] }
  | { kind: "object"; fields: { label: string; hint?: string; shape: Shape }[] }
  | { kind: "list"; items: Shape[] }
  | { kind: "table"; columns: string[]; rows: (Shape | null)[][] };

const MAX_DEPTH = 40; // deeper values are shown as text
const MAX_COLUMNS = 6;

/** The tree of a value. Fields are in the value's order, which is the schema's; labels come from the schema's titles. */
export function shapeOf(value: unknown, schema: unknown, root: unknown = schema, depth = 0): Shape {
  const known = resolve(schema, root, value);
  if (depth > MAX_DEPTH) return { kind: "scalar", value: JSON.stringify(value) };
  if (Array.isArray(value)) return shapeOfList(value, known, root, depth);
  if (isObject(value)) {
    const properties = isObject(known.properties) ? known.properties : {};
    const fields = Object.entries(value).map(([name, child]) => {
      const own = Object.hasOwn(properties, name) ? properties[name] : undefined;
      return { ...labelOf(name, own, root), shape: shapeOf(child, own, root, depth + 1) };
    });
    return { kind: "object", fields };
  }
  const scalar = { kind: "scalar" as const, value: (value ?? null) as string | number | boolean | null };
  return Array.isArray(known.enum) ? { ...scalar, choices: known.enum as unknown[] } : scalar;
}

function shapeOfList(values: unknown[], schema: JsonObject, root: unknown, depth: number): Shape {
  const prefix: unknown[] = Array.isArray(schema.prefixItems) ? schema.prefixItems : [];
  const items = values.map((value, i) => shapeOf(value, i < prefix.length ? prefix[i] : schema.items, root, depth + 1));
  return asTable(items) ?? { kind: "list", items };
}

/** Several flat objects with few fields are easier to read as a table. */
function asTable(items: Shape[]): Shape | null {
  if (items.length < 2) return null;
  const columns = new Set<string>();
  for (const item of items) {
    if (
      item.kind !== "object" ||
      item.fields.length === 0 ||
      item.fields.some((field) => field.shape.kind !== "scalar")
    )
      return null;
    for (const field of item.fields) columns.add(field.label);
  }
  if (columns.size > MAX_COLUMNS) return null;
  const cell = (item: Shape, label: string) =>
    (item.kind === "object" ? item.fields.find((field) => field.label === label)?.shape : null) ?? null;
  return {
    kind: "table",
    columns: [...columns],
    rows: items.map((item) => [...columns].map((label) => cell(item, label))),
  };
}

/** Follows `$ref` within the document, and takes the first alternative whose type fits. */
function resolve(schema: unknown, root: unknown, value: unknown): JsonObject {
  let known = isObject(schema) ? schema : {};
  for (let hops = 0; typeof known.$ref === "string" && hops < 10; hops++) {
    const target = at(root, known.$ref);
    const { $ref: _followed, ...own } = known;
    known = isObject(target) ? { ...target, ...own } : {};
  }
  const alternatives = [known.anyOf, known.oneOf].find(Array.isArray) as unknown[] | undefined;
  if (!alternatives) return known;
  const fitting = alternatives.map((each) =>
    isObject(each) && typeof each.$ref === "string" ? at(root, each.$ref) : each,
  );
  const found = fitting.find((each) => isObject(each) && fits(each, value));
  return isObject(found) ? { ...known, ...found } : known;
}

function fits(schema: JsonObject, value: unknown): boolean {
  if (isObject(value)) {
    const required = Array.isArray(schema.required) ? (schema.required as unknown[]) : [];
    return (
      (schema.type === "object" || isObject(schema.properties)) &&
      required.every((name) => Object.hasOwn(value, String(name)))
    );
  }
  const type = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
  return (
    schema.type === type ||
    (type === "number" && schema.type === "integer") ||
    (Array.isArray(schema.enum) && schema.enum.includes(value))
  );
}

function at(root: unknown, pointer: string): unknown {
  if (!pointer.startsWith("#")) return undefined;
  let found: unknown = root;
  for (const step of pointer.slice(1).split("/").filter(Boolean)) {
    const name = step.replaceAll("~1", "/").replaceAll("~0", "~");
    found = isObject(found) && Object.hasOwn(found, name) ? found[name] : undefined;
  }
  return found;
}

function labelOf(name: string, schema: unknown, root: unknown): { label: string; hint?: string } {
  const known = resolve(schema, root, undefined);
  const label = typeof known.title === "string" && known.title.trim() ? known.title : humanized(name);
  return typeof known.description === "string" && known.description.trim()
    ? { label, hint: known.description }
    : { label };
}

/** `birth_date` and `birthDate` read as "Birth date"; names with other signs stay as they are. */
export function humanized(name: string): string {
  if (!/^[\p{L}\p{N}_-]+$/u.test(name)) return name;
  const words = name
    .replace(/(\p{Ll}|\p{N})(\p{Lu})/gu, "$1 $2")
    .split(/[\s_-]+/u)
    .filter(Boolean)
    .map((word) => (/^\p{Lu}\p{Ll}+$/u.test(word) ? word.toLowerCase() : word));
  const text = words.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
