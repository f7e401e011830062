// The AI SDK (`ai` and `@ai-sdk/openai-compatible`) and OpenAI's own library for JavaScript.
//
// Usage: node ai_sdk_client.js URL MODEL. Prints what came back as JSON on its last line.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const [url, name] = process.argv.slice(2);
const prompt = "What is the capital of France?";
const asked = { prompt: "What is the weather in Paris?", temperature: 0, maxOutputTokens: 100 };
const city = z.object({ city: z.string().max(30) });

const provider = createOpenAICompatible({
  name: "antiphon",
  baseURL: `${url}/v1`,
  supportsStructuredOutputs: true,
  includeUsage: true,
});
const model = provider(name);

const whole = await generateText({ model, prompt, temperature: 0 });
const stream = streamText({ model, prompt, temperature: 0 });
const pieces = [];
for await (const piece of stream.textStream) pieces.push(piece);
const structured = await generateText({ ...asked, model, output: Output.object({ schema: city }) });
const get_weather = tool({
  description: "The weather of a city.",
  inputSchema: city,
  execute: async ({ city }) => `Rain in ${city}`,
});
const toolChoice = { type: "tool", toolName: "get_weather" };
const called = await generateText({ ...asked, model, tools: { get_weather }, toolChoice });

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });
const chat = { model: name, messages: [{ role: "user", content: prompt }], temperature: 0 };
const said = {
  answers: [
    whole.text,
    pieces.join(""),
    (await client.chat.completions.create(chat)).choices[0].message.content,
    await client.chat.completions.stream(chat).finalContent(),
    (await client.responses.create({ model: name, input: prompt, temperature: 0 })).output_text,
  ],
  usage: [whole.usage.outputTokens, (await stream.usage).outputTokens],
  finishReason: whole.finishReason,
  structured: structured.output,
  toolResults: called.toolResults.map(({ input, output }) => ({ input, output })),
};
console.log(JSON.stringify(said));
