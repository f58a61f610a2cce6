// Text to speech with openai and ElevenLabs for Node. Prints one JSON object.
import OpenAI from "openai";
import { ElevenLabsClient } from "@elevenlabs/elevenlabs-js";

const [url, token, model, text] = process.argv.slice(2);
const told = {};
const openai = new OpenAI({ apiKey: token, baseURL: `${url}/v1/openai`, maxRetries: 0 });
const wav = await openai.audio.speech.create({ model, voice: "af_heart", input: text });
told.openai = Buffer.from(await wav.arrayBuffer()).subarray(0, 4).toString("latin1");
try {
  await openai.audio.speech.create({ model, voice: "nobody", input: text });
} catch (error) {
  told.refused = [error.constructor.name, error.status];
}
const client = new ElevenLabsClient({ apiKey: token, baseUrl: url, maxRetries: 0 });
const parts = [];
const spoken = await client.textToSpeech.stream("af_heart", {
  text,
  modelId: model,
  outputFormat: "mp3_24000_48",
});
for await (const part of spoken) parts.push(part);
told.bytes = Buffer.concat(parts).length;
told.voices = (await client.voices.getAll()).voices.length;
told.voice = (await client.voices.get("bm_george")).name;
console.log(JSON.stringify(told));
