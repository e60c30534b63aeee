// The page at /docs: what openapi.json describes, in the order of its tags, with a form that sends each request.

import { fill } from "../about/shell.js";
import { el } from "../dom.js";
import { purposeOf } from "../purpose.js";
import { addressList, errorList, firstSteps, ruleList } from "./lists.js";
import { operationCard } from "./operation.js";

function build(model, api) {
  const groups = api.tags.map(tag => group(tag, api, model));
  const rest = [ruleList(api, model), errorList(api), addressList()];
  const chapters = el("div", { class: "chapters" }, firstSteps(api), ...groups, ...rest);
  const lede = [...purposeOf(model), " Here is what programs can ask it, to try and to copy."];
  return { heading: [model.name], lede, content: [contents([...groups, ...rest]), chapters] };
}

function group({ name, description }, api, model) {
  const operations = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ path, method, operation })));
  const cards = operations.filter(({ operation }) => operation.tags?.includes(name)).map(each => operationCard(each, api, model));
  const id = name.toLowerCase().replace(/[^a-z]+/g, "-");
  return el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, name), el("p", { class: "about" }, description), ...cards);
}

/** Make links to the parts of the page, and to the operations in them. */
function contents(sections) {
  const entry = (part, heading) => el("a", { href: `#${part.id}` }, part.querySelector(heading).textContent);
  const inner = section => [...section.querySelectorAll(".operation")].map(card => el("li", {}, entry(card, "h3")));
  const items = sections.map(section => el("li", {}, entry(section, "h2"), inner(section).length > 0 && el("ul", {}, ...inner(section))));
  return el("nav", { class: "contents", "aria-label": "On this page" }, el("ul", {}, ...items));
}

await fill("API", build, "openapi.json");
// What the address names was not there yet when the browser looked for it.
if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
