// What a sample really is, in words: the true answer that its row in the data has.

import { breakable, el, plain } from "../dom.js";
import { joined } from "../words.js";

// By task: what stands before the truth, and the truth as texts to show one by one.
const TRUTHS = {
  classes: () => ({ before: "This sample really is ", texts: truth => [truth] }),
  labels: () => ({ before: "What really applies to this sample: ", texts: truth => truth, none: "no label" }),
  number: ({ number }) => ({
    before: `The true ${plain(number.column || "number")} of this sample is `,
    texts: truth => [[truth.toLocaleString("en", { maximumFractionDigits: number.decimals ?? 6 }), number.unit].filter(Boolean).join(" ")],
  }),
};

/** Write truths of a model. Returns {short(truth): a text, sentence(truth): nodes}. A sample whose truth is not known has null. */
export function truthWriter(model) {
  const { before, texts, none } = TRUTHS[model.task](model);
  const shown = truth => (truth.length === 0 ? [none] : texts(truth));
  return {
    short: truth => (truth === null ? "" : joined(shown(truth))),
    sentence: truth => [before, ...shown(truth).flatMap((text, i, all) => [i === 0 ? "" : i === all.length - 1 ? " and " : ", ", el("strong", { dir: "auto" }, ...breakable(text))]), "."],
  };
}
