// What is said when the model was replaced while the page is open. The page was made from the description of the one before:
// its record, its classes and its thresholds are not those of the model that answers now.

import { RequestError } from "../ask.js";
import { button } from "../dom.js";
import { makeLink } from "./link.js";

/** Say it in place of the answer, and offer to load the page again with what was filled in. Args: reply, that of the new model. */
export function sayReplaced(panel, parts, options, reply) {
  panel.fail(new RequestError("The model was replaced while this page was open. Load the page again to be answered by the new one; it is filled in as it is now."));
  const load = async () => {
    const { url } = await makeLink(reply.model, parts, options);
    window.history.replaceState(null, "", url);
    location.reload();
  };
  document.querySelector(".answer .notice").append(button("Load again", "again", load));
}
