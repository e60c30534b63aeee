// Texts of the bundle: the service has made HTML of their Markdown. Only plain elements of it are taken over.

import { el } from "../dom.js";

const KEPT = new Set(["BLOCKQUOTE", "BR", "CODE", "EM", "H2", "H3", "H4", "HR", "LI", "OL", "P", "PRE", "STRONG", "TABLE", "TBODY", "TD", "TH", "THEAD", "TR", "UL"]);
const LEADS_TO = /^(https?|mailto):/i;

/** Turn HTML into nodes: elements of KEPT without attributes, links to web pages, and the text of everything else. */
export function nodesOf(html) {
  return [...new DOMParser().parseFromString(html, "text/html").body.childNodes].map(copy);
}

function copy(node) {
  const children = [...node.childNodes].map(copy);
  const href = node.nodeName === "A" ? node.getAttribute("href") : null;
  if (href && LEADS_TO.test(href)) return el("a", { href, rel: "noopener noreferrer" }, ...children);
  if (!KEPT.has(node.nodeName)) return document.createTextNode(node.textContent);
  const element = el(node.nodeName.toLowerCase(), { tabIndex: node.nodeName === "PRE" && 0 }, ...children); // a program may be wider than the screen
  return node.nodeName === "TABLE" ? el("div", { class: "wide", tabIndex: 0, role: "group", "aria-label": "Table" }, element) : element;
}
