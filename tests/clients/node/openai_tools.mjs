// openai for Node: tools, typed answers, responses, retries. Prints one JSON object.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const [url, token, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1/openai`, apiKey: token, maxRetries: 0 });
const City = z.object({ city: z.enum(["Paris", "Rome"]) });
const question = "What is the weather in Paris?";
const body = { model, messages: [{ role: "user", content: question }], max_tokens: 60, temperature: 0 };
const parameters = z.toJSONSchema(City);
const tools = [{ type: "function", function: { name: "get_weather", description: "The weather.", parameters } }];
const told = {};

const look = (choice) => ({
  reason: choice.finish_reason,
  calls: choice.message.tool_calls.map((call) => [call.type, !!call.id, call.function.name, call.function.arguments]),
});
for (const [name, tool_choice] of [
  ["required", "required"],
  ["named", { type: "function", function: { name: "get_weather" } }],
]) {
  told[name] = look((await client.chat.completions.create({ ...body, tools, tool_choice })).choices[0]);
  const stream = client.chat.completions.stream({ ...body, tools, tool_choice });
  told[`${name}Streamed`] = look((await stream.finalChatCompletion()).choices[0]);
}
const free = (await client.chat.completions.create({ ...body, tools, tool_choice: "auto" })).choices[0];
told.free = Boolean(free.message.content || free.message.tool_calls?.length);

// A whole conversation: ask, call, tell the result, answer; runTools does it by itself.
const runner = client.chat.completions.runTools(
  {
    ...body,
    tool_choice: { type: "function", function: { name: "get_weather" } },
    tools: [{ type: "function", function: { name: "get_weather", parameters, parse: JSON.parse, function: ({ city }) => `Sunny in ${city}` } }],
  },
  { maxChatCompletions: 2 },
);
await runner.done();
told.roles = runner.messages.map((message) => message.role);

const parsed = await client.chat.completions.parse({ ...body, response_format: zodResponseFormat(City, "city") });
told.parsed = parsed.choices[0].message.parsed;

const asked = { model, input: question, max_output_tokens: 16, temperature: 0 };
told.response = (await client.responses.create(asked)).output_text;
told.responseStreamed = "";
for await (const event of await client.responses.create({ ...asked, stream: true })) {
  if (event.type === "response.output_text.delta") told.responseStreamed += event.delta;
}
const typed = { ...asked, max_output_tokens: 60, text: { format: zodTextFormat(City, "city") } };
told.responseParsed = (await client.responses.parse(typed)).output_parsed;

const patient = new OpenAI({ baseURL: `${url}/v1/openai`, apiKey: token, maxRetries: 2 });
try {
  await patient.chat.completions.create({ ...body, model: "t/broken", user: "three times" });
} catch (error) {
  told.broken = [error.constructor.name, error.status];
}
console.log(JSON.stringify(told));
