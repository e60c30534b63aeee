// How numbers are written: to the digits that a deviation allows, in the unit of the training table.

const COMPACT_FROM = 10_000;
const TINY = 1e-4; // numbers below it are written with an exponent where they need more decimals than MOST_DECIMALS
const MOST_DECIMALS = 6;
const MOST_FORMATTED = 20; // decimals that every browser can format

/** Make the function that writes values to the second digit of a deviation, with one decimal more than the training rows at most. */
export function writer({ decimals }, deviation) {
  const digits = deviation > 0 ? 1 - Math.floor(Math.log10(deviation)) : decimals;
  const kept = Math.min(digits, decimals + 1);
  const step = 10 ** -kept;
  const shown = Math.min(Math.max(0, kept), MOST_FORMATTED);
  const format = new Intl.NumberFormat("en", { minimumFractionDigits: shown, maximumFractionDigits: shown });
  return value => isTiny(value, kept) ? exponential(value, kept) : format.format(Math.round(value / step) * step).replace("-", "−");
}

function isTiny(value, decimals) {
  return value !== 0 && Math.abs(value) < TINY && decimals > MOST_DECIMALS;
}

/** Write a tiny number to so many decimals: 3.14159e-9 with 11 as "3.14e−9". */
function exponential(value, decimals) {
  const digits = decimals + Math.floor(Math.log10(Math.abs(value)));
  return value.toExponential(Math.min(Math.max(0, digits), 3)).replaceAll("-", "−");
}

/** Put the unit behind a written number. */
export function withUnit(text, { unit }) {
  return unit ? `${text}\u00a0${unit}` : text;
}

/** Write a number for an axis, with three digits. */
export function short(value) {
  const options = Math.abs(value) >= COMPACT_FROM ? { notation: "compact", maximumSignificantDigits: 3 } : { maximumSignificantDigits: 3 };
  if (value !== 0 && Math.abs(value) < TINY) return Number(value.toPrecision(3)).toExponential().replaceAll("-", "−");
  return new Intl.NumberFormat("en", options).format(value).replace("-", "−");
}

/** Write a value of training, with its decimals. */
export function plain(value, { decimals }) {
  if (isTiny(value, decimals)) return exponential(value, decimals);
  return new Intl.NumberFormat("en", { maximumFractionDigits: Math.min(decimals, MOST_FORMATTED) }).format(value).replace("-", "−");
}
