// Classifiers of pictures with deepinfra for Node. Prints one JSON object.
import { readFileSync } from "node:fs";
import { ImageClassification, ZeroShotImageClassification } from "deepinfra";

const [url, token, , path] = process.argv.slice(2);
const classifier = (Client, model) => new Client(`${url}/v1/inference/${model}`, token, { maxRetries: 0 });
const classes = classifier(ImageClassification, "t/classes");
const chooses = classifier(ZeroShotImageClassification, "t/chooses");
const bytes = readFileSync(path);
const inputs = { path, buffer: bytes, dataUrl: `data:image/png;base64,${bytes.toString("base64")}` };
const told = { classes: {}, chooses: {} };
for (const [name, image] of Object.entries(inputs)) {
  const found = await classes.generate({ image });
  told.classes[name] = [found.results, found.inference_status.status];
  const chosen = await chooses.generate({ image, candidate_labels: ["dog", "cat"] });
  told.chooses[name] = [chosen.results, chosen.inference_status.status];
}
try {
  await classes.generate({ image: Buffer.from("no picture at all") });
} catch (error) {
  told.error = error.response?.status ?? String(error.message);
}
console.log(JSON.stringify(told));
