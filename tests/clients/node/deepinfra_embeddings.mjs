// deepinfra for Node and the AI SDK's provider: embeddings. Prints one JSON object.
import { createDeepInfra } from "@ai-sdk/deepinfra";
import { embed, embedMany } from "ai";
import { Embeddings } from "deepinfra";

const [url, token, model] = process.argv.slice(2);
const texts = ["rain falls", "a red bicycle"];
const client = new Embeddings(`${url}/v1/inference/${model}`, token, { maxRetries: 0 });
const answer = await client.generate({ inputs: texts, normalize: true });
const told = { native: answer.embeddings, tokens: answer.input_tokens, status: answer.inference_status.status };

const provider = createDeepInfra({ baseURL: `${url}/v1`, apiKey: token });
const one = await embed({ model: provider.textEmbeddingModel(model), value: texts[0], maxRetries: 0 });
told.one = one.embedding;
const many = await embedMany({ model: provider.textEmbeddingModel(model), values: texts, maxRetries: 0 });
told.many = many.embeddings;
told.usage = many.usage.tokens;
try {
  await embed({ model: provider.textEmbeddingModel("no/such"), value: "x", maxRetries: 0 });
} catch (error) {
  told.error = [error.name, error.statusCode, error.message];
}
console.log(JSON.stringify(told));
