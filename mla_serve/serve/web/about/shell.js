// What the pages about the model and its API share: they ask the service for their content and put it below the head.

import { get, RequestError } from "../ask.js";
import { button, el } from "../dom.js";
import { askForKey } from "../key.js";

const place = id => document.getElementById(id);

/** Fill the page. Args: what, its name in the title; build(model, other) -> {heading, lede, content}, lists of nodes, lede has paragraphs; path, of the other. */
export async function fill(what, build, path = "about.json") {
  try {
    const [model, other] = await Promise.all([get("model"), get(path)]);
    const { heading, lede, content } = await build(model, other);
    document.title = `${what} · ${model.name} · mla_serve`;
    place("name").replaceChildren(...heading);
    place("lede").replaceChildren(...lede);
    place("content").replaceChildren(...content);
  } catch (error) {
    fail(error);
    if (!(error instanceof RequestError)) throw error;
  }
}

function fail(error) {
  const lede = place("lede");
  lede.replaceChildren(el("p", { role: "alert" }, error instanceof RequestError ? error.message : "This page failed; reload it."));
  if (error.status === 401) askForKey(lede);
  else place("content").replaceChildren(button("Try again", "again", () => location.reload()));
}

/** Make a card with a heading. */
export function section(heading, ...children) {
  return el("section", { class: "card fact" }, el("h2", {}, heading), ...children);
}
