// Speech recognition with deepinfra and openai for Node. Prints one JSON object.
import { readFileSync, createReadStream } from "node:fs";
import { AutomaticSpeechRecognition } from "deepinfra";
import OpenAI from "openai";

const [url, token, model, path] = process.argv.slice(2);
const deepinfra = new AutomaticSpeechRecognition(`${url}/v1/inference/${model}`, token, { maxRetries: 0 });
const told = {};
const fields = { language: "en", chunk_level: "word", temperature: 0, condition_on_previous_text: true };
for (const [name, audio] of Object.entries({ file: path, bytes: readFileSync(path) })) {
  const answer = await deepinfra.generate({ audio, ...fields });
  told[name] = [answer.text, answer.segments.length, answer.words.length, answer.language, answer.inference_status.status];
}
try {
  await deepinfra.generate({ audio: Buffer.from("no sound at all") });
} catch (error) {
  told.error = error.response?.status ?? String(error.message);
}
const openai = new OpenAI({ apiKey: token, baseURL: `${url}/v1/openai`, maxRetries: 0 });
const file = () => createReadStream(path);
told.plain = (await openai.audio.transcriptions.create({ model, file: file() })).text;
const words = ["word", "segment"];
const verbose = { response_format: "verbose_json", timestamp_granularities: words };
const timed = await openai.audio.transcriptions.create({ model, file: file(), ...verbose });
told.timed = [timed.words.length, timed.segments.length, timed.duration];
told.deltas = [];
for await (const event of await openai.audio.transcriptions.create({ model, file: file(), stream: true })) {
  if (event.type === "transcript.text.delta") told.deltas.push(event.delta);
  if (event.type === "transcript.text.done") told.done = event.text;
}
console.log(JSON.stringify(told));
