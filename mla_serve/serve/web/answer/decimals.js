// How numbers are written: to the digits that a deviation allows, in the unit of the training table.

const LONG = 1e12; // from here on a number is written with an exponent
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
  return value => isTiny(value, kept) || Math.abs(value) >= LONG ? exponential(value, kept) : format.format(Math.round(value / step) * step).replace("-", "−");
}

function isTiny(value, decimals) {
  return value !== 0 && Math.abs(value) < TINY && decimals > MOST_DECIMALS;
}

/** Write a tiny number to so many decimals, 3.14159e-9 with 11 as "3.14e−9"; or a long one to three digits. */
function exponential(value, decimals) {
  const digits = Math.abs(value) >= LONG ? 2 : decimals + Math.floor(Math.log10(Math.abs(value)));
  return value.toExponential(Math.min(Math.max(0, digits), 3)).replace("+", "").replaceAll("-", "−");
}

/** Put the unit behind a written number. */
export function withUnit(text, { unit }) {
  return unit ? `${text}\u00a0${unit}` : text;
}

/** Write a number for an axis, with three digits. */
export function short(value) {
  const options = Math.abs(value) >= COMPACT_FROM ? { notation: "compact", maximumSignificantDigits: 3 } : { maximumSignificantDigits: 3 };
  if ((value !== 0 && Math.abs(value) < TINY) || Math.abs(value) >= LONG) return Number(value.toPrecision(3)).toExponential().replace("+", "").replaceAll("-", "−");
  return new Intl.NumberFormat("en", options).format(value).replace("-", "−");
}

/** Write a value of training, with its decimals. */
export function plain(value, { decimals }) {
  if (isTiny(value, decimals) || Math.abs(value) >= LONG) return exponential(value, decimals);
  return new Intl.NumberFormat("en", { maximumFractionDigits: Math.min(decimals, MOST_FORMATTED) }).format(value).replace("-", "−");
}
