// The line under the answer: how sure it is, whether the inputs agree, and whether one of them is strange.

import { el, plain } from "../dom.js";
import { joined, spelled, SURE_WORDS } from "../words.js";

const STRANGE_FROM = 0.99; // stranger than so many of the inputs that the model was validated with

/** List the inputs that are less like the training data than nearly all validation inputs. */
export function strangeInputs({ modalities }) {
  return Object.keys(modalities).filter(name => modalities[name].unfamiliarity >= STRANGE_FROM);
}

/** Write the line. Returns the same in a few words, for where there is little room. */
export function fillVerdict(element, reply, view) {
  const strange = strangeInputs(reply);
  const { doubt, rest } = agreement(reply, view, strange.length > 0);
  const word = view.unsure(reply);
  const doubts = [
    ...(doubt ? [[el("b", {}, doubt[0]), doubt[1]]] : []),
    ...(strange.length ? [[el("span", { class: "strange" }, `${joined(strange.map(plain))} ${strange.length > 1 ? "are" : "is"} unlike the training data`)]] : []),
  ];
  // No word of certainty stands alone beside what speaks against it.
  const but = SURE_WORDS.includes(word) ? ", but " : ", and ";
  element.replaceChildren(word, ...doubts.flatMap((each, i) => [i ? ", and " : but, ...each]), ".", ...rest);
  return [doubt?.[0] ?? agreed(rest), strange.length ? `strange ${joined(strange.map(plain))}` : ""].filter(Boolean).join(", ");
}

function agreed(rest) {
  return rest.find(each => each instanceof Element)?.textContent.toLowerCase() ?? "";
}

/** Say whether the inputs agree: {doubt: [what is stressed, what follows], or nothing; rest: nodes of the sentences after it}. */
function agreement(reply, view, strange) {
  const names = Object.keys(reply.modalities);
  const sentence = (bold, rest) => (bold || rest ? [" ", ...(bold ? [el("b", {}, bold)] : []), `${rest}.`] : []);
  if (names.length === 1) return { rest: sentence("", reply.missing.length ? `It rests on ${plain(names[0])} alone` : "") };
  const own = name => reply.modalities[name];
  const differing = names.filter(name => !view.agrees(own(name), reply));
  const rest = differing.length || strange ? sentence("", hangsOn(reply, view)) : [];
  if (differing.length === names.length) return { doubt: ["they disagree", "; none of them says so by itself"], rest };
  if (differing.length === 1 && names.length > 3) return { doubt: [`${plain(differing[0])} disagrees`, "; the others agree"], rest };
  if (differing.length) return { doubt: ["they disagree", `: ${joined(differing.map(plain))} ${differing.length > 1 ? "say" : "says"} otherwise`], rest };
  const said = view.together?.(reply) ?? all(names, own, reply, view, strange);
  return { rest: [...sentence(...said), ...rest] };
}

function all(names, own, reply, view, strange) {
  const spare = !strange && names.every(name => view.stays(own(name), reply));
  if (names.length === 2) return ["Both agree", spare ? "; either would do alone" : ""];
  return [`All ${spelled(names.length)} agree`, spare ? "; any one could be left out" : ""];
}

/** Name the inputs without which the answer would be another, or might be. */
function hangsOn(reply, view) {
  const found = Object.entries(reply.modalities).map(([name, own]) => [name, view.hangs?.(own, reply)]).filter(([, how]) => how);
  if (!found.length) return "";
  const surely = found.every(([, how]) => how === "would");
  return `It rests on ${joined(found.map(([name]) => plain(name)))}: without ${found.length > 1 ? "one of them" : "it"} the answer ${surely ? "would" : "might"} be another`;
}
