// Vercel's AI SDK: its default model for OpenAI, which speaks the Responses API, over two turns with a tool.
// Arguments: the directories of `ai` and `@ai-sdk/openai`, base URL, model. Prints what came of it as JSON.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [ai, provider, baseURL, model] = process.argv.slice(2);
const load = (directory) => {
  const { exports } = JSON.parse(readFileSync(`${directory}/package.json`));
  const entry = exports["."].import;
  return import(pathToFileURL(`${directory}/${entry.default ?? entry}`).href);
};
const { generateText, streamText, jsonSchema, stepCountIs, tool } = await load(ai);
const { createOpenAI } = await load(provider);

const bodies = [];
const openai = createOpenAI({
  baseURL,
  apiKey: "none",
  fetch: (url, options) => {
    bodies.push(JSON.parse(options.body));
    return fetch(url, options);
  },
});
const tools = {
  get_weather: tool({
    description: "The weather of a city.",
    inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"] }),
    execute: async ({ city }) => `12 degrees in ${city}`,
  }),
};
const settings = {
  model: openai(model),
  tools,
  stopWhen: stepCountIs(3),
  maxRetries: 0,
  providerOptions: { openai: { reasoningSummary: "auto", forceReasoning: true } },
};
const question = { role: "user", content: "Weather in Paris?" };
const first = await generateText({ ...settings, messages: [question] });
const streamed = streamText({ ...settings, messages: [question, ...first.response.messages, question] });
const kinds = new Set();
let text = "";
for await (const part of streamed.fullStream) {
  kinds.add(part.type);
  if (part.type === "text-delta") text += part.text;
  if (part.type === "error") throw part.error;
}
const told = {
  whole: first.text,
  steps: first.steps.length,
  thought: first.steps[0].reasoningText,
  streamed: text,
  kinds: [...kinds],
  usage: (await streamed.totalUsage).inputTokens,
  references: bodies.at(-1).input.filter((item) => item.type === "item_reference").length,
};
console.log(JSON.stringify(told));
