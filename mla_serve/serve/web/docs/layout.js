// JSON for people.

const LONGEST_LINE = 64; // characters of a list or an object on one line

/** Write JSON for people: what is short stays on one line. */
export function layOut(value, indent = "") {
  if (typeof value === "string" && !indent) return value;
  const line = JSON.stringify(value, null, 1).replace(/\n\s*/g, " ");
  if (value === null || typeof value !== "object" || line.length <= LONGEST_LINE) return line;
  const deeper = `${indent} `;
  const members = Array.isArray(value) ? value.map(each => layOut(each, deeper)) : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${layOut(each, deeper)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return `${open}\n${members.map(member => deeper + member).join(",\n")}\n${indent}${close}`;
}
