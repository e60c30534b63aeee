// Ranges of a number: that of one input by itself, and how much of training a range covers.

// How many deviations reach to both sides so that a normal distribution holds this much.
const REACH = [[0.8, 1.2816], [0.9, 1.6449], [0.95, 1.96], [0.99, 2.5758]];

/** Compute the range of one input by itself, as wide as that of the answer is to be; one deviation where the answer has none. */
export function ownRange({ value, deviation }, { interval }, { log }) {
  const reach = REACH.find(([coverage]) => Math.abs(coverage - interval?.coverage) < 1e-6)?.[1] ?? 1;
  if (!log) return { low: value - reach * deviation, high: value + reach * deviation };
  const factor = Math.exp(reach * Math.asinh(deviation / value)); // the logarithm is Gaussian: the part below is shorter
  return { low: value / factor, high: value * factor };
}

/** Compute which share of the values seen in training a range covers, 0 to 1; null where an end or those values are not known. */
export function covered({ low, high }, number) {
  if (number.low === null || low === null || high === null || number.high <= number.low) return null;
  const scale = number.log ? value => Math.log(Math.max(value, Number.MIN_VALUE)) : value => value;
  const inside = scale(Math.min(high, number.high)) - scale(Math.max(low, number.low));
  return Math.max(0, inside / (scale(number.high) - scale(number.low)));
}
