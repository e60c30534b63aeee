// Asks a service of columns through openapi-fetch and the types that openapi-typescript generated:
// node ask_columns.js ADDRESS; prints {way: answer} as JSON.

import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

type Columns = NonNullable<paths["/predict"]["post"]["requestBody"]>["content"]["application/json"]["columns"];

const client = createClient<paths>({ baseUrl: process.argv[2]! });
const cells: Columns = { price: 12.5, colour: "red", size: null, listed: "2023-06-01", "in stock": true };

/** Write a form with the cells as one JSON object, or as single fields. */
function toForm(single: boolean): () => FormData {
  return () => {
    const form = new FormData();
    if (single) for (const [name, cell] of Object.entries(cells!)) form.append(`columns.${name}`, cell === null ? "" : String(cell));
    else form.append("columns", JSON.stringify(cells));
    return form;
  };
}

async function main(): Promise<void> {
  const answers: Record<string, unknown> = {};
  answers.json = (await client.POST("/predict", { body: { columns: cells } })).data;
  answers.form = (await client.POST("/predict", { body: { columns: cells } as never, bodySerializer: toForm(false) })).data;
  answers.single = (await client.POST("/predict", { body: { columns: cells } as never, bodySerializer: toForm(true) })).data;
  answers.batch = (await client.POST("/predict/batch", { body: { samples: [{ columns: cells }] } })).data!.results[0];
  console.log(JSON.stringify(answers));
}

await main();
