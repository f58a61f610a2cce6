// deepinfra for Node and the AI SDK's provider: pictures. Prints one JSON object.
import { createDeepInfra } from "@ai-sdk/deepinfra";
import { generateImage as ai7, experimental_generateImage as ai6 } from "ai";
import { TextToImage } from "deepinfra";

const [url, token, model] = process.argv.slice(2);
const generateImage = ai7 ?? ai6;
const client = new TextToImage(`${url}/v1/inference/${model}`, token, { maxRetries: 0 });
const answer = await client.generate({ prompt: "a red apple", width: 128, height: 128, num_images: 2, seed: 3 });
const told = { images: answer.images, seed: answer.seed, status: answer.inference_status.status };
try {
  await client.generate({ prompt: "a red apple", width: 8 });
} catch (error) {
  told.error = String(error.message);
}

const provider = createDeepInfra({ baseURL: `${url}/v1`, apiKey: token });
const one = await generateImage({ model: provider.image(model), prompt: "a red apple", size: "128x128", seed: 3, n: 2, maxRetries: 0 });
told.ai = one.images.map((image) => image.base64);
const wide = await generateImage({ model: provider.image(model), prompt: "a rocket", aspectRatio: "16:9", maxRetries: 0 });
told.wide = wide.image.base64;
try {
  const source = Buffer.from(told.ai[0], "base64");
  const edited = await generateImage({ model: provider.image(model), prompt: { text: "a blue heart", images: [source] }, size: "128x128", maxRetries: 0 });
  told.edited = edited.image.base64;
} catch (error) {
  told.editError = [error.name, error.message];
}
try {
  await generateImage({ model: provider.image("no/such"), prompt: "x", maxRetries: 0 });
} catch (error) {
  told.missing = [error.name, error.statusCode, error.message];
}
console.log(JSON.stringify(told));
