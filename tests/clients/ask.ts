// Asks a service through openapi-fetch and the types that openapi-typescript generated, with every subset of the
// modalities: node ask.js ADDRESS SAMPLE.json; prints {way: {subset: answer}} as JSON.

import createClient from "openapi-fetch";
import { readFileSync } from "node:fs";
import type { components, paths } from "./schema.js";

const [address, sampleFile] = process.argv.slice(2) as [string, string];
const sample = JSON.parse(readFileSync(sampleFile, "utf-8")) as Record<string, string>;
const client = createClient<paths>({ baseUrl: address });

type Answer = components["schemas"]["ClassPrediction"];
type Problem = components["schemas"]["Problem"];

function subsets(names: string[]): string[][] {
  return names.reduce<string[][]>((found, name) => [...found, ...found.map(each => [...each, name])], [[]]).slice(1);
}

/** Write a form as openapi-fetch's documentation does. */
function toForm(body: Record<string, unknown> = {}): FormData {
  const form = new FormData();
  for (const [name, value] of Object.entries(body)) form.append(name, value as string | Blob);
  return form;
}

function labels(answer: Answer): string[] {
  return answer.probabilities.map(each => each.label);
}

async function main(): Promise<void> {
  const { data: model } = await client.GET("/model");
  const answers: Record<string, Record<string, unknown>> = { form: {}, json: {}, batch: {}, embed: {}, options: {}, problem: {} };
  for (const names of subsets(Object.keys(sample))) {
    const key = names.join("+");
    const values = Object.fromEntries(names.map(name => [name, sample[name]]));
    const files = Object.fromEntries(names.map(name => [name, model!.modalities[name]!.sent_as === "file" ? new Blob([Buffer.from(sample[name]!, "base64")]) : sample[name]]));
    answers.json![key] = (await client.POST("/predict", { body: values })).data;
    answers.form![key] = (await client.POST("/predict", { body: files as never, bodySerializer: toForm })).data;
    answers.batch![key] = (await client.POST("/predict/batch", { body: { samples: [values] } })).data!.results[0];
    answers.embed![key] = (await client.POST("/embed", { body: values })).data;
  }
  const text = Object.keys(sample).find(name => model!.modalities[name]!.sent_as === "text")!;
  const asked = await client.POST("/predict", { params: { query: { top_k: 2, coverage: 0.9 } }, body: { [text]: sample[text] } });
  answers.options!.url = asked.data;
  if (labels(asked.data!).length !== 2) throw new Error("top_k in the URL was not read");
  const inForm = await client.POST("/predict", { body: { [text]: sample[text], top_k: 2, coverage: 0.9 }, bodySerializer: toForm });
  answers.options!.form = inForm.data;
  const { error } = await client.POST("/predict", { body: { top_k: 1 } });
  answers.problem!.missing = error satisfies Problem | undefined;
  console.log(JSON.stringify(answers));
}

void main();
