// The model card of the bundle.

import { nodesOf } from "./markup.js";
import { fill } from "./shell.js";
import { el } from "../dom.js";

fill("Model card", (model, texts) => ({
  heading: [model.name],
  lede: [el("p", {}, texts.card ? "Its model card: what it is, how good it is, what it was made from." : "This model has no model card.")],
  content: [
    texts.card
      ? el("article", { class: "card fact text" }, ...nodesOf(texts.card))
      : el("p", { class: "text" }, "A card is written whenever a model is exported: ", el("code", {}, "mla-serve export runs/NAME"), "."),
  ],
}));
