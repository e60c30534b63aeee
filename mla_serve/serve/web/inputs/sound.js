// Arithmetic on sound: samples are Float32Array in [-1, 1], mono. No page, no devices.

import { randomNumbers } from "../dom.js";

const ZERO_CROSSINGS = 24; // of the low-pass filter, on each side
const FRAME_S = 0.01;
const TRIM_DB = 40; // what is this much quieter than the loudest moment is silence, as in the service
const ABOVE_FLOOR_DB = 12; // and so is what hardly rises above the room's own noise ...
const NEVER_ABOVE_DB = 25; // ... unless it is this close to the loudest moment
const MARGIN_S = 0.03;

/** Change the rate with a windowed-sinc low-pass filter. */
export function resample(samples, from, to) {
  if (from === to) return samples;
  const cutoff = 0.97 * Math.min(1, to / from);
  const reach = ZERO_CROSSINGS / cutoff;
  const result = new Float32Array(Math.round((samples.length * to) / from));
  for (let i = 0; i < result.length; i++) {
    const centre = (i * from) / to;
    const last = Math.min(samples.length - 1, Math.floor(centre + reach));
    let sum = 0;
    for (let j = Math.max(0, Math.ceil(centre - reach)); j <= last; j++) sum += samples[j] * kernel(j - centre, cutoff, reach);
    result[i] = sum;
  }
  return result;
}

function kernel(distance, cutoff, reach) {
  if (distance === 0) return cutoff;
  const angle = Math.PI * distance;
  return (Math.sin(cutoff * angle) / angle) * (0.5 + 0.5 * Math.cos(angle / reach));
}

/** Cut silence off both ends, also when a room's noise is in it; leave a recording without any sound as it is. */
export function trim(samples, rate) {
  const frame = Math.max(1, Math.round(FRAME_S * rate));
  const levels = frameLevels(samples, frame);
  const loudest = levels.reduce((a, b) => Math.max(a, b), 0);
  if (loudest === 0) return samples;
  const floor = levels.toSorted()[Math.floor(levels.length / 10)];
  const threshold = Math.max(loudest * gain(-TRIM_DB), Math.min(floor * gain(ABOVE_FLOOR_DB), loudest * gain(-NEVER_ABOVE_DB)));
  const loud = level => level > threshold;
  const margin = Math.round(MARGIN_S * rate);
  const start = levels.findIndex(loud) * frame - margin;
  const end = (levels.findLastIndex(loud) + 1) * frame + margin;
  return samples.slice(Math.max(0, start), Math.min(samples.length, end));
}

function frameLevels(samples, frame) {
  const levels = new Float32Array(Math.ceil(samples.length / frame));
  for (let i = 0; i < levels.length; i++) levels[i] = level(samples.subarray(i * frame, (i + 1) * frame));
  return levels;
}

/** Root mean square. */
export function level(samples) {
  return Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / (samples.length || 1));
}

/** Mix sound with noise of its own level; at amount 1 nothing but noise is left. */
export function spoilSamples(samples, amount) {
  const random = randomNumbers(5);
  const loudness = 3 * level(samples);
  return samples.map(value => (1 - amount) * value + amount * loudness * (random() + random() - 1));
}

/** Write a WAV file of 32-bit floats: quiet recordings lose nothing. */
export function encodeWav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 4 * samples.length));
  const write = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  write(0, "RIFF");
  view.setUint32(4, 36 + 4 * samples.length, true);
  write(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 3, true); // IEEE float
  view.setUint16(22, 1, true); // mono
  view.setUint32(24, rate, true);
  view.setUint32(28, 4 * rate, true);
  view.setUint16(32, 4, true);
  view.setUint16(34, 32, true);
  write(36, "data");
  view.setUint32(40, 4 * samples.length, true);
  samples.forEach((value, i) => view.setFloat32(44 + 4 * i, value, true));
  return new Blob([view], { type: "audio/wav" });
}

const gain = decibels => 10 ** (decibels / 20);
