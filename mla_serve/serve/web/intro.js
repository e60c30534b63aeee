// The head of the page: what the model is for, and what can be sent.

import { el, title } from "./dom.js";
import { isDrawable } from "./inputs/image.js";

const VERBS = { image: "show a picture", audio: "speak", file: "choose a file", text: "type", numbers: "enter numbers", cells: "fill in columns" };
const FEW = 12;
// By task: what the model does.
const PURPOSES = {
  classes: ({ classes }) => ["Tells ", ...named(classes, "classes", " apart")],
  labels: ({ labels }) => ["Finds which of ", ...named(labels.map(each => each.label), "labels", " apply")],
  number: ({ number }) => ["Estimates ", el("bdi", {}, number.column || "a number"), number.unit ? ` in ${number.unit}` : ""],
};

/** Say what the model is for, in the words of whoever made it if there are any, and what a visitor can send. */
export function introduce(model, heading, lede) {
  document.title = `${model.name} · mla_serve`;
  heading.textContent = model.name;
  const purpose = firstParagraph(model.about?.purpose ?? "");
  const several = Object.keys(model.modalities).length > 1;
  lede.replaceChildren(
    el("strong", { class: "purpose" }, ...(purpose ? [purpose] : [...PURPOSES[model.task](model), "."])),
    el("span", {}, `${title(ways(model))}${several ? ", in any combination: one input is enough" : ""}. The answer comes as you go, with how sure it is${several ? " and how much each input counted" : ""}.`),
  );
}

function ways(model) {
  const verbs = Object.values(model.modalities).map(modality => (isDrawable(modality) ? "draw" : (VERBS[modality.kind] ?? VERBS[modality.sent_as])));
  const kinds = [...new Set(verbs)];
  return kinds.length > 1 ? `${kinds.slice(0, -1).join(", ")} or ${kinds.at(-1)}` : kinds[0];
}

/** Name a few, or count many and name the first ones. Args: end, what follows. */
function named(names, what, end) {
  const few = names.length <= FEW;
  const shown = names.slice(0, few ? FEW : 3).map(each => el("bdi", {}, each));
  const parted = shown.flatMap((name, i) => [i === 0 ? "" : i === shown.length - 1 ? " and " : ", ", name]);
  return few ? [...parted, end] : [`${names.length.toLocaleString("en")} ${what}${end}, such as `, ...parted];
}

/** The first paragraph of a text in Markdown, without its signs for emphasis, code and links. */
function firstParagraph(markdown) {
  const text = markdown.trim().split(/\n\s*\n/)[0];
  return text.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").replace(/[*`]+/g, "").replace(/\s+/g, " ");
}
