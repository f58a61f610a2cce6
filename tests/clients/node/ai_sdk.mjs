// The AI SDK over one of its providers: text, streams, objects, tools. Prints one JSON object.
import { createDeepInfra } from "@ai-sdk/deepinfra";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const [url, token, name, provider] = process.argv.slice(2);
const providers = {
  deepinfra: createDeepInfra({ baseURL: `${url}/v1`, apiKey: token }),
  compatible: createOpenAICompatible({
    name: "inferd", baseURL: `${url}/v1/openai`, apiKey: token, includeUsage: true, supportsStructuredOutputs: true,
  }),
};
const model = providers[provider](name);
const prompt = "What is the weather in Paris?";
const fields = { model, prompt, maxOutputTokens: 60, temperature: 0, maxRetries: 0 };
const schema = z.object({ city: z.enum(["Paris", "Rome"]) });
const told = {};

const plain = await generateText({ ...fields, maxOutputTokens: 12 });
told.plain = plain.text;
told.usage = [plain.usage.inputTokens > 0, plain.usage.outputTokens];
told.reason = plain.finishReason;

const stream = streamText({ ...fields, maxOutputTokens: 12 });
told.streamed = "";
for await (const text of stream.textStream) told.streamed += text;
told.streamedUsage = (await stream.usage).outputTokens;

told.object = (await generateObject({ ...fields, schema })).object;
const objects = streamObject({ ...fields, schema });
for await (const part of objects.partialObjectStream) told.parts = (told.parts ?? 0) + 1;
told.objectStreamed = await objects.object;

const tools = { get_weather: tool({ description: "The weather.", inputSchema: schema, execute: ({ city }) => `Sunny in ${city}` }) };
const called = await generateText({ ...fields, tools, toolChoice: "required" });
told.calls = called.toolCalls.map((call) => [call.toolName, call.input]);
told.results = called.toolResults.map((result) => result.output);
told.callReason = called.finishReason;
const calling = streamText({ ...fields, tools, toolChoice: { type: "tool", toolName: "get_weather" } });
told.callsStreamed = (await calling.toolCalls).map((call) => [call.toolName, call.input]);
const steps = await generateText({ ...fields, tools, stopWhen: stepCountIs(3) });
told.steps = Boolean(steps.text || steps.toolCalls.length);

told.errors = {};
for (const [kind, change] of [["bad", { temperature: 9 }], ["missing", { model: providers[provider]("no/such") }]]) {
  try {
    await generateText({ ...fields, ...change });
  } catch (error) {
    told.errors[kind] = [error.name, error.statusCode, error.message];
  }
}
told.broken = [];
const breaking = streamText({ ...fields, model: providers[provider]("t/breaks"), onError: ({ error }) => told.broken.push(String(error.message ?? error)) });
for await (const _ of breaking.fullStream);
console.log(JSON.stringify(told));
