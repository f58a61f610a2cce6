// A chat with a picture through the AI SDK. Prints one JSON object.
import { readFile } from "node:fs/promises";
import { createDeepInfra } from "@ai-sdk/deepinfra";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText } from "ai";

const [url, token, name, path] = process.argv.slice(2);
const providers = {
  deepinfra: createDeepInfra({ baseURL: `${url}/v1`, apiKey: token }),
  compatible: createOpenAICompatible({ name: "inferd", baseURL: `${url}/v1/openai`, apiKey: token }),
};
const content = [{ type: "image", image: await readFile(path) }, { type: "text", text: "What is in this picture?" }];
const told = {};
for (const [provider, create] of Object.entries(providers)) {
  const fields = { messages: [{ role: "user", content }], maxOutputTokens: 24, temperature: 0, maxRetries: 0 };
  told[provider] = (await generateText({ model: create(name), ...fields })).text;
}
console.log(JSON.stringify(told));
