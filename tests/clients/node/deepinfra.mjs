// deepinfra for Node: it takes a full URL as the model's name. Prints one JSON object.
import { TextGeneration } from "deepinfra";

const [url, token, model] = process.argv.slice(2);
const client = new TextGeneration(`${url}/v1/inference/${model}`, token, { maxRetries: 0 });
const answer = await client.generate({ input: "The capital of France is", max_new_tokens: 6, temperature: 0 });
const told = { text: answer.results[0].generated_text, status: answer.inference_status, tokens: answer.num_tokens };
try {
  await new TextGeneration(`${url}/v1/inference/no/such`, token, { maxRetries: 0 }).generate({ input: "x" });
} catch (error) {
  told.error = String(error.message);
}
console.log(JSON.stringify(told));
