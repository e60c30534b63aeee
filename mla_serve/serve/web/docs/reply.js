// The reply of an operation: the example of openapi.json until a request was sent, then what the service answers.

import { el } from "../dom.js";
import { layOut } from "./layout.js";
import { headers } from "./request.js";

/** Return the example of a reply of this name, or the first one; undefined where there is none. */
export function exampleReply(operation, name) {
  const examples = operation.responses["200"].content["application/json"].examples ?? {};
  return (examples[name] ?? Object.values(examples)[0])?.value;
}

/** Make the box of the reply. Returns {element, show(example or undefined), outdate(), send({parts, options} or {body})}. */
export function replyBox(path, method) {
  const status = el("span", { class: "hint", role: "status" });
  const content = el("pre", { tabIndex: 0, "aria-label": "Reply", role: "group" });
  const more = el("p", { class: "hint" });
  const write = (said, text, ...links) => {
    status.textContent = said;
    content.textContent = text;
    content.hidden = !text;
    more.replaceChildren(...links);
  };

  async function send({ parts, options, body = null }) {
    const form = new FormData();
    for (const [name, value] of Object.entries({ ...parts, ...options })) form.append(name, value, ...(value instanceof Blob ? [value.filename] : []));
    const sent = parts ? form : body;
    const started = performance.now();
    try {
      const reply = await fetch(path, { method, body: sent, headers: headers(sent) });
      const text = await reply.text();
      const time = `${Math.round(performance.now() - started)} ms`;
      const problem = reply.ok ? null : parsed(text);
      const links = problem?.type?.startsWith("/problems/") ? [el("a", { href: problem.type.slice(1) }, "What this error means")] : [];
      write(`${reply.status} ${reply.statusText} · ${time}`, layOut(parsed(text) ?? text), ...links);
    } catch {
      write("The service does not answer. Is it still running?", "");
    }
  }
  const show = example => (example ? write("example: what this model answered", layOut(example)) : write("Send the request to see it.", ""));
  // The form has changed: what stands here is not the answer to it.
  const outdate = () => content.hidden || (status.textContent = "to the request before your change");
  return { outdate, element: el("div", { class: "reply" }, el("header", {}, el("h4", {}, "Reply"), status), content, more), send, show };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
