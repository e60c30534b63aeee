// One operation: its request as a form, the same from code, the reply, and what its fields mean.

import { el } from "../dom.js";
import { codeTabs, curl, curlJson, python, pythonCall } from "../work/snippets.js";
import { fieldList } from "./fields.js";
import { exampleReply, replyBox } from "./reply.js";
import { requestForm } from "./request.js";

// By operation: how the Python client asks.
const PYTHON = {
  predict: (parts, options, model) => python(parts, options, model),
  embed: (parts, options, model) => pythonCall("embed", parts, options, model, ["answer.features"]),
};
const JSON_TYPE = "application/json";

/** Make the card of an operation. Args: path, method, operation, as in openapi.json; api, all of it; model, GET /model. */
export function operationCard({ path, method, operation }, api, model) {
  const id = operation.operationId;
  const content = operation.requestBody?.content ?? {};
  const examples = content[JSON_TYPE]?.examples ?? {};
  const form = requestForm(operation, api, () => {
    press(null);
    reply.outdate();
    write();
  });
  const reply = replyBox(path.slice(1), method.toUpperCase());
  const program = el("div", { class: "program" });
  const inPython = form.isForm && PYTHON[id];
  const code = codeTabs(program, el("h4", {}, "From code"), inPython ? ["curl", "Python"] : ["curl"]);

  function write() {
    const { parts, options, body } = form.read();
    if (!form.isForm) return code.show([curlJson(body, path.slice(1))]);
    code.show([curl(parts, options, path.slice(1)), ...(inPython ? [inPython(parts, options, model)] : [])], parts);
  }
  function pick(name) {
    form.fill(examples[name].value);
    press(name);
    write();
    reply.show(exampleReply(operation, name));
  }

  const send = el("button", { class: "button primary" }, "Send");
  const chips = Object.entries(examples).map(([name, { summary }]) => el("button", { type: "button", class: "button chip", "aria-pressed": "false", onclick: () => pick(name) }, summary));
  const press = name => chips.forEach((chip, i) => chip.setAttribute("aria-pressed", String(Object.keys(examples)[i] === name)));
  const request = el("form", { class: "request", novalidate: true }, el("h4", {}, "Request"), chips.length > 1 && el("div", { class: "chips", role: "group", "aria-label": "Examples" }, ...chips), form.element, send);
  request.addEventListener("submit", async event => {
    event.preventDefault();
    send.disabled = true;
    await reply.send(form.read());
    send.disabled = false;
  });
  if (Object.keys(examples).length) pick(Object.keys(examples)[0]);
  else {
    form.fill({});
    write();
    reply.show(exampleReply(operation));
  }
  const title = el("h3", { id: `${id}-title` }, el("span", { class: "method" }, method.toUpperCase()), " ", el("code", {}, path));
  return el("article", { id, class: "operation", "aria-labelledby": `${id}-title` }, title, el("p", { class: "about" }, operation.description), el("div", { class: "sides" }, request, el("div", { class: "result" }, program, reply.element)), meanings(operation, api), errors(operation, api));
}

/** Name the statuses of its errors; 401 only where keys are asked for. */
function errors(operation, api) {
  const statuses = Object.keys(operation.responses).filter(status => status >= "400" && (status !== "401" || api.security));
  return el("p", { class: "hint" }, "May be refused with ", el("a", { href: "#errors" }, statuses.join(", ")), ".");
}

function meanings(operation, api) {
  const { schema } = operation.responses["200"].content[JSON_TYPE];
  return el("details", { class: "meanings" }, el("summary", {}, "What the fields of the reply mean"), fieldList(schema, api));
}
