// Words and signs that the views of all tasks share.

export const SURE_WORDS = ["Sure", "Fairly sure"];

/** Put an uncertainty into words, from 0 (sure) to 1 (as undecided as can be). */
export function certainty(share) {
  if (share < 0.1) return "Sure";
  if (share < 0.35) return "Fairly sure";
  return share < 0.7 ? "Unsure" : "Guessing";
}

/** Write a number of nats with its sign. */
export function nats(value) {
  return signed(value, size => size.toFixed(2));
}

/** Write a number with its sign; nothing before what is written as zero. */
export function signed(value, write) {
  const size = write(Math.abs(value));
  return /[1-9]/.test(size) ? `${value < 0 ? "−" : "+"}${size}` : size;
}

/** Write a small number as a word. */
export function spelled(number) {
  return ["no", "one", "two", "three", "four", "five", "six"][number] ?? number.toLocaleString("en");
}

/** Join names: a, b and c. */
export function joined(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/** Write a number of things: 1 row, 250 rows. */
export function count(number, what) {
  return `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
}
