// The parts of /docs beside the operations: where to send requests, the fusion rules, the errors, other addresses.

import { el } from "../dom.js";

const ADDRESSES = {
  "openapi.json": "This description for programs, as OpenAPI 3.1. Tools write clients in many languages from it.",
  readyz: "200 if the service takes requests, otherwise 503.",
  livez: "200 if the process lives.",
  metrics: "Counts and times for Prometheus.",
};

/** Say where requests go, whether a key is needed, and what comes back. */
export function firstSteps(api) {
  const base = new URL(".", location).href;
  const rows = [
    ["Address", [el("code", {}, base)]],
    ["Key", api.security ? ["With every request: ", el("code", {}, "Authorization: Bearer KEY"), ". This page sends yours."] : ["None is needed."]],
    ["Send", ["A form, or JSON with files in base64. One input is enough."]],
    ["Get", ["JSON. An error says what was sent, what was expected and what to do."]],
  ];
  return el("dl", { class: "facts" }, ...rows.map(([term, text]) => el("div", {}, el("dt", {}, term), el("dd", {}, ...text))));
}

/** List the fusion rules, the default one first, as the option `fusion` describes them. */
export function ruleList(api, model) {
  const rules = api.paths["/predict"].post.parameters.find(({ name }) => name === "fusion").schema;
  const meaning = name => rules["x-enumDescriptions"][name];
  const names = [...rules.enum].sort((a, b) => (b === model.fusion.default) - (a === model.fusion.default));
  const items = names.map(name => [[el("code", {}, name), ...(name === model.fusion.default ? [" ", el("span", { class: "mark" }, "default")] : [])], [meaning(name)]]);
  return chapter("rules", "Fusion rules", "How the answers of several inputs become one. The option fusion chooses the rule, for each request anew. In these sentences, scores are what the model computes before probabilities are made of them.", items);
}

/** List every kind of error that may come, with a link to the page that explains it. */
export function errorList(api) {
  const kinds = Object.values(api.components.examples).filter(({ value }) => value.type && (value.status !== 401 || api.security));
  kinds.sort((a, b) => a.value.status - b.value.status);
  const items = kinds.map(({ summary, description, value }) => [[el("span", { class: "status" }, value.status), " ", el("a", { href: value.type.slice(1) }, summary)], [description]]);
  return chapter("errors", "Errors", "Every error is JSON of the type application/problem+json. Its type is the address of a page that explains it, detail says what to do, field names the input at fault, and request_id finds it in the log of the service.", items);
}

/** List the addresses that openapi.json does not describe. */
export function addressList() {
  const items = Object.entries(ADDRESSES).map(([path, text]) => [[el("a", { href: path }, el("code", {}, `GET /${path}`))], [text]]);
  return chapter("health", "Health and more", "For those who run the service, and for tools.", items);
}

function chapter(id, title, about, items) {
  const entries = items.map(([term, text]) => el("div", {}, el("dt", {}, ...term), el("dd", {}, ...text)));
  return el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), el("p", { class: "about" }, about), el("dl", { class: "entries" }, ...entries));
}
