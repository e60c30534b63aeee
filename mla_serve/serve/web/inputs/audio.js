// The field for sound: record, choose or drop a file, see its outline, play it.
//
// A file is sent as it is. A recording, and a file to which noise was added, is sent as a WAV at the model's rate.

import { button, el, fileButton, icon, title } from "../dom.js";
import { deviceMessage, mediaDevices } from "./image.js";
import { encodeWav, resample, spoilSamples, trim } from "./sound.js";

const LONGEST_S = 30;
const DECODE_RATE = 48000;
const LOWEST_RATE = 8000; // every browser can play it
// Without the processing that phone calls use: the training data did not have it.
const MICROPHONE = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/** Make the field of an audio modality. */
export function audioField({ name, modality, changed, take, say }) {
  const { rate, max_seconds: maxSeconds } = modality.input;
  const advice = `Or drop a recording. Up to ${maxSeconds.toLocaleString("en")} s.`;
  let sound = null; // {samples, file}: samples at the model's rate, null when the browser cannot read the file
  let shown = new Float32Array(0);
  let recording = null;
  let player = null;

  const wave = el("canvas", { class: "wave", width: 1200, height: 160, role: "img", "aria-label": `${title(name)}: no recording yet` });
  const text = el("span", {}, "Record");
  const record = el("button", { type: "button", class: "button primary", "aria-pressed": "false", onclick: toggle }, icon("audio"), text);
  const play = button("Play", "play", () => (player ? player.stop() : start()), { disabled: true, "aria-label": `Play ${title(name)}` });
  const choose = fileButton("Choose a file", "audio/*,.wav,.flac,.ogg,.mp3,.aiff", `Choose a recording for ${title(name)}`, take);
  const length = el("span", { class: "hint" }, advice);
  const element = el("div", { class: "sound" }, wave, el("div", { class: "tools row" }, record, play, choose, length));
  new ResizeObserver(() => show(shown)).observe(wave);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(shown));

  async function toggle() {
    if (recording) return finish();
    try {
      recording = await startRecording();
    } catch (error) {
      return say(deviceMessage("microphone", error));
    }
    say(null);
    record.setAttribute("aria-pressed", "true");
    text.textContent = "Stop";
    length.textContent = "Listening";
    recording.timer = setTimeout(finish, 1000 * Math.min(LONGEST_S, maxSeconds));
    follow();
  }
  function follow() {
    if (!recording) return;
    show(recording.recorded());
    requestAnimationFrame(follow);
  }
  async function finish() {
    const { recorded, stop, rate: recordedRate, timer } = recording;
    clearTimeout(timer);
    recording = null;
    record.setAttribute("aria-pressed", "false");
    text.textContent = "Record";
    await stop();
    const samples = recorded();
    if (!samples.length) return say("Nothing was recorded. Keep the recording on for a moment.");
    sound = { samples: resample(trim(samples, recordedRate), recordedRate, rate), file: null };
    changed();
  }
  async function load(file, isLast) {
    const samples = await decode(file, rate).catch(() => null);
    if (!isLast()) return;
    sound = { samples, file };
    if (!sound.samples) say("This browser cannot read such a file; it is sent as it is, without noise.");
  }
  function clear() {
    if (recording) {
      clearTimeout(recording.timer);
      recording.stop();
    }
    recording = sound = null;
    record.setAttribute("aria-pressed", "false");
    text.textContent = "Record";
    player?.stop();
    describe(new Float32Array(0));
  }
  function describe(samples) {
    show(samples);
    play.disabled = !samples.length;
    const seconds = `${(samples.length / rate).toFixed(2)} s`;
    length.textContent = sound ? (sound.samples ? seconds : sound.file.name) : advice;
    wave.setAttribute("aria-label", sound ? `${title(name)}: waveform of ${seconds}` : `${title(name)}: no recording yet`);
  }
  function show(samples) {
    shown = samples;
    drawWave(wave, samples);
  }
  function start() {
    player = playSamples(shown, rate, () => (player = null));
  }
  function payload(noise) {
    if (!sound) return null;
    const samples = sound.samples && noise > 0 ? spoilSamples(sound.samples, noise) : sound.samples;
    describe(samples ?? new Float32Array(0));
    const asItIs = sound.file && (noise === 0 || !samples);
    const blob = asItIs ? sound.file : encodeWav(samples, rate);
    blob.filename = asItIs ? sound.file.name ?? `${name}.wav` : `${name}.wav`;
    return blob;
  }

  return { element, payload, load, clear, accepts: file => file.type.startsWith("audio/") };
}

/** Open the microphone. Returns {recorded(): all samples so far, stop(), rate}. */
async function startRecording() {
  const stream = await mediaDevices().getUserMedia({ audio: MICROPHONE });
  const context = new AudioContext();
  await context.audioWorklet.addModule("web/inputs/recorder.js");
  const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  const blocks = [];
  recorder.port.onmessage = ({ data }) => blocks.push(data);
  context.createMediaStreamSource(stream).connect(recorder);
  const stop = async () => {
    await new Promise(done => setTimeout(done, 60)); // for the sound that the microphone has not delivered yet
    stream.getTracks().forEach(track => track.stop());
    await context.close();
  };
  return { recorded: () => joined(blocks), stop, rate: context.sampleRate };
}

function joined(blocks) {
  const samples = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
  let at = 0;
  for (const block of blocks) {
    samples.set(block, at);
    at += block.length;
  }
  return samples;
}

/** Decode a sound file into mono samples at the model's rate. */
async function decode(file, rate) {
  const buffer = await new OfflineAudioContext(1, 1, DECODE_RATE).decodeAudioData(await file.arrayBuffer());
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, c) => buffer.getChannelData(c));
  const mono = channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
  return resample(mono, DECODE_RATE, rate);
}

/** Play samples; returns the source, whose stop() ends it. */
function playSamples(samples, rate, ended) {
  const context = new AudioContext();
  const playedRate = Math.max(rate, LOWEST_RATE);
  const played = resample(samples, rate, playedRate);
  const buffer = context.createBuffer(1, played.length, playedRate);
  buffer.copyToChannel(played, 0);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(context.destination);
  source.onended = () => {
    context.close();
    ended();
  };
  source.start();
  return source;
}

/** Draw the outline of a sound, scaled to its loudest moment. */
function drawWave(canvas, samples) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  context.fillStyle = getComputedStyle(canvas).color;
  const loudest = samples.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  const bars = 150;
  for (let bar = 0; bar < bars; bar++) {
    const part = samples.subarray(Math.floor((bar * samples.length) / bars), Math.ceil(((bar + 1) * samples.length) / bars));
    const peak = part.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / loudest;
    const tall = Math.max(4, peak * height * 0.94);
    context.fillRect((bar * width) / bars, (height - tall) / 2, (0.55 * width) / bars, tall);
  }
}
