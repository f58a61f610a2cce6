// openai for Node: plain, streamed with its helper, errors, retries. Prints one JSON object.
import OpenAI from "openai";

const [url, token, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1/openai`, apiKey: token, maxRetries: 0 });
const body = { model, messages: [{ role: "user", content: "What is the capital of France?" }], max_tokens: 12, temperature: 0 };
const told = {};

const plain = await client.chat.completions.create(body);
told.plain = plain.choices[0].message.content;
told.cost = plain.usage.estimated_cost;

const stream = await client.chat.completions.create({ ...body, stream: true });
told.streamed = "";
for await (const chunk of stream) told.streamed += chunk.choices[0]?.delta?.content ?? "";

const runner = client.chat.completions.stream(body);
told.helper = (await runner.finalChatCompletion()).choices[0].message.content;

told.models = (await client.models.list()).data.map((entry) => entry.id);

const errors = {};
for (const [name, change, key] of [
  ["bad", { temperature: 9 }, token],
  ["unsupported", { functions: [{ name: "f" }] }, token],
  ["missing", { model: "no/such" }, token],
  ["unauthorized", {}, "wrong"],
]) {
  try {
    await new OpenAI({ baseURL: `${url}/v1/openai`, apiKey: key, maxRetries: 0 })
      .chat.completions.create({ ...body, ...change });
  } catch (error) {
    errors[name] = [error.constructor.name, error.status, error.param ?? null];
  }
}
told.errors = errors;
console.log(JSON.stringify(told));
