// The fields of a reply: name, type and meaning, with the fields inside of them, from a schema of openapi.json.

import { el } from "../dom.js";

/** List the fields of a schema. Args: seen, the names of schemas that the list has explained. */
export function fieldList(schema, api, seen = new Set()) {
  const [name, own] = resolved(schema, api);
  if (name) seen.add(name);
  const items = Object.entries(own.properties ?? {}).map(([field, each]) => {
    const inner = schemasIn(each).filter(part => !seen.has(resolved(part, api)[0]));
    const lists = inner.map(part => fieldList(part, api, seen)).filter(list => list.children.length);
    return el("div", {}, el("dt", {}, el("code", {}, field), " ", el("span", { class: "hint" }, typeOf(each, api))), el("dd", {}, each.description && el("p", {}, each.description), ...lists));
  });
  return el("dl", { class: "schema" }, ...items);
}

function resolved(schema, api) {
  const name = schema.$ref?.split("/").pop();
  return [name, name ? api.components.schemas[name] : schema];
}

/** Return the schemas with fields of their own inside of one: of a list's items, of an object's members, of alternatives. */
function schemasIn(schema) {
  if (schema.$ref || schema.properties) return [schema];
  const inside = [...(schema.anyOf ?? []), schema.items, schema.additionalProperties].filter(each => each && typeof each === "object");
  return inside.flatMap(schemasIn);
}

function typeOf(schema, api) {
  if (schema.$ref) return resolved(schema, api)[1].properties ? "object" : typeOf(resolved(schema, api)[1], api);
  if (schema.anyOf) return [...new Set(schema.anyOf.map(each => typeOf(each, api)))].join(" or ");
  if (schema.enum) return schema.enum.map(each => JSON.stringify(each)).join(" or ");
  if (schema.type === "array") return `list of ${plural(typeOf(schema.items ?? {}, api))}`;
  if (schema.type === "object" && schema.additionalProperties) return "object, a member for each name";
  return { string: "text", integer: "whole number", boolean: "true or false" }[schema.type] ?? schema.type ?? "any value";
}

function plural(type) {
  return type.replace(/^(object|text|whole number|number)\b/, "$1s");
}
