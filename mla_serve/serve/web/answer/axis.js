// A shared axis for values of a number, linear or logarithmic.

const MOST_TICKS = 5;
const APART = 0.2; // of the axis, so that their texts do not meet

/** Make an axis that holds all values. Returns {place(value): 0 to 1, ticks}. */
export function makeAxis(values, log) {
  const scale = log ? Math.log : value => value;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [from, to] = high > low ? [scale(low), scale(high)] : [scale(low) - 1, scale(low) + 1];
  const margin = 0.03 * (to - from);
  const place = value => (scale(value) - from + margin) / (to - from + 2 * margin);
  return { place, ticks: spaced(log ? logarithmicTicks(low, high) : linearTicks(low, high), place) };
}

function spaced(ticks, place) {
  return ticks.reduce((kept, tick) => (kept.length && place(tick) - place(kept.at(-1)) < APART ? kept : [...kept, tick]), []);
}

function linearTicks(low, high) {
  const rough = (high - low || 1) / (MOST_TICKS - 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(each => each >= rough);
  const count = Math.floor(high / step) - Math.ceil(low / step) + 1;
  return Array.from({ length: Math.max(0, count) }, (_, i) => (Math.ceil(low / step) + i) * step);
}

function logarithmicTicks(low, high) {
  const inside = factors => powers(low, high).flatMap(power => factors.map(factor => factor * power)).filter(value => value >= low && value <= high);
  const fitting = [[1, 2, 5], [1, 3], [1]].map(inside).find(ticks => ticks.length <= MOST_TICKS) ?? inside([1]);
  const every = Math.ceil(fitting.length / MOST_TICKS);
  return fitting.length > 1 ? fitting.filter((_, i) => i % every === 0) : linearTicks(low, high);
}

function powers(low, high) {
  const [first, last] = [Math.floor(Math.log10(low)), Math.floor(Math.log10(high))];
  return Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
}
