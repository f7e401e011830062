/** Schemas to begin with. Texts and lists are bounded: a small model may not find the end of an unbounded one. */
import type { JsonObject } from "./check";

export interface Example {
  name: "city" | "task" | "review" | "recipe";
  schema: JsonObject;
}

const text = (maxLength: number) => ({ type: "string", maxLength });
const object = (properties: JsonObject) => ({
  type: "object",
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
});

export const EXAMPLES: readonly Example[] = [
  {
    name: "city",
    schema: {
      title: "City",
      ...object({ city: text(40), country: text(40), population: { type: "integer", minimum: 0 } }),
    },
  },
  {
    name: "task",
    schema: {
      title: "Task",
      ...object({
        title: text(80),
        priority: { enum: ["low", "normal", "high"] },
        done: { type: "boolean" },
        steps: { type: "array", items: text(80), minItems: 1, maxItems: 5 },
      }),
    },
  },
  {
    name: "review",
    schema: {
      title: "Review",
      ...object({
        sentiment: { enum: ["positive", "neutral", "negative"] },
        stars: { type: "integer", minimum: 1, maximum: 5 },
        summary: text(200),
        quotes: { type: "array", items: text(100), maxItems: 3 },
      }),
    },
  },
  {
    name: "recipe",
    schema: {
      title: "Recipe",
      ...object({
        name: text(60),
        servings: { type: "integer", minimum: 1, maximum: 12 },
        ingredients: {
          type: "array",
          minItems: 1,
          maxItems: 8,
          items: object({
            what: text(40),
            amount: { type: "number", minimum: 0, multipleOf: 0.5 },
            unit: { enum: ["g", "ml", "piece", "spoon"] },
          }),
        },
        steps: { type: "array", items: text(120), minItems: 1, maxItems: 6 },
      }),
    },
  },
];
