// The line under the answer: how sure it is, whether the inputs agree, and whether one of them is strange.

import { el, plain, title } from "../dom.js";
import { joined, spelled } from "../words.js";

export const STRANGE_FROM = 0.99; // stranger than so many of the inputs that the model was validated with

/** List the inputs that are less like the training data than nearly all validation inputs. */
export function strangeInputs({ modalities }) {
  return Object.keys(modalities).filter(name => modalities[name].unfamiliarity >= STRANGE_FROM);
}

/** Write the line. Returns the same in a few words, for where there is little room. */
export function fillVerdict(element, reply, view) {
  const strange = strangeInputs(reply);
  const [bold, rest] = agreement(reply, view);
  element.replaceChildren(
    `${view.unsure(reply)}.`,
    ...(bold ? [" ", el("b", {}, bold), `${rest}.`] : rest ? [` ${rest}.`] : []),
    ...(strange.length ? [" ", el("span", { class: "strange" }, `${title(joined(strange.map(plain)))} ${strange.length > 1 ? "are" : "is"} unlike the training data.`)] : []),
  );
  return [bold.toLowerCase(), strange.length ? `${joined(strange.map(plain))} strange` : ""].filter(Boolean).join(", ");
}

/** Say whether the inputs agree: [what is stressed, what follows]. */
function agreement(reply, view) {
  const names = Object.keys(reply.modalities);
  if (names.length === 1) return ["", reply.missing.length ? `It rests on ${plain(names[0])} alone` : ""];
  const own = name => reply.modalities[name];
  const differing = names.filter(name => !view.agrees(own(name), reply));
  if (differing.length === names.length) return ["They disagree", "; none of them says so by itself"];
  if (differing.length === 1 && names.length > 3) return [`All but ${plain(differing[0])} agree`, ""];
  if (differing.length) return ["They disagree", `: ${joined(differing.map(plain))} ${differing.length > 1 ? "say" : "says"} otherwise`];
  const said = view.together?.(reply);
  if (said) return said;
  if (names.length === 2) return ["Both agree", "; either would do alone"];
  return [`All ${spelled(names.length)} agree`, names.every(name => view.stays(own(name), reply)) ? "; any one could be left out" : ""];
}
