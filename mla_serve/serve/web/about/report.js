// The report of the bundle, in a frame in which no script runs. It brings its own styles, pictures and sounds.

import { fill } from "./shell.js";
import { get, RequestError } from "../ask.js";
import { button, el } from "../dom.js";

// Without allow-scripts nothing in the frame runs; the page may look into it, to give it the height of its content.
const SANDBOX = "allow-same-origin allow-modals allow-popups allow-popups-to-escape-sandbox";

fill("Report", async (model, texts) => {
  const heading = ["Report"]; // the report begins with the name
  if (!texts.report) return { heading, lede: [el("p", {}, `${model.name} has no report.`)], content: [howToMakeOne()] };
  const report = await get("report.html", reply => reply.blob());
  const address = URL.createObjectURL(new Blob([report], { type: "text/html;charset=utf-8" }));
  const frame = el("iframe", { class: "report", title: `The report on ${model.name}`, sandbox: SANDBOX, src: address, onload: () => settle(frame) });
  const save = el("a", { class: "button", href: address, download: `${model.name}-report.html` }, "Save");
  return {
    heading,
    lede: [el("p", {}, "In which situations it is good, and in which it is not.")],
    content: [el("p", { class: "tools" }, button("Print", "print", () => frame.contentWindow.print()), save), frame],
  };
});

/** Give the frame the height of its content, and let its links open other pages. */
function settle(frame) {
  const { contentDocument: content } = frame;
  if (!content) throw new RequestError("The report cannot be shown.");
  for (const link of content.querySelectorAll("a[href]:not([href^='#'])")) {
    if (/^(https?|mailto):$/.test(link.protocol)) Object.assign(link, { target: "_blank", rel: "noopener noreferrer" });
    else link.removeAttribute("href");
  }
  const fit = () => { frame.style.height = `${Math.ceil(content.documentElement.getBoundingClientRect().height)}px`; };
  new ResizeObserver(fit).observe(content.documentElement);
  fit();
}

function howToMakeOne() {
  return el("section", { class: "text" },
    el("p", {}, "A report is written when a model is exported and the rows that it is measured on are there. From the run of this model:"),
    el("pre", { tabIndex: 0 }, el("code", {}, "mla-serve export runs/NAME --data DATA --out models/NAME")),
    el("p", {}, "Without the run, this measures the model on labelled rows and prints the scores:"),
    el("pre", { tabIndex: 0 }, el("code", {}, "mla-serve evaluate --model models/NAME --data DATA")),
  );
}
