// The field for an image: draw, drop, choose, paste or take a picture.
//
// A file is sent as it is. A drawing, and a picture that was inverted or has noise, is sent as a PNG of the size that
// the model reads.

import { button, el, fileButton, icon, megabytes, randomNumbers, title } from "../dom.js";
import { learnLook, makePad, renderStrokes, USUAL_LOOK } from "./pad.js";

const PAD_UP_TO = 64; // pixels: larger pictures are photographs, not drawings
const STAGE = 280;

/** Whether the model may read drawings: its pictures are small and grey. */
export function isDrawable({ kind, input }) {
  return kind === "image" && input.channels === 1 && Math.max(input.width, input.height) <= PAD_UP_TO;
}

/** Make the field of an image modality. */
export function imageField({ name, modality, limits, changed, take, say }) {
  const { width, height, channels, background } = modality.input;
  const colours = { paper: background, ink: background < 128 ? 255 : 0 };
  const drawable = isDrawable(modality);
  let look = USUAL_LOOK;
  let picture = null; // {file, bitmap}: bitmap is null when the browser cannot show the file
  let inverted = false;

  const stage = el("canvas", {
    class: "stage", width: STAGE, height: Math.round((STAGE * height) / width), tabIndex: drawable ? 0 : -1, role: "img",
    "aria-label": drawable ? `${title(name)}: drawing pad. Arrow keys move the pen, space puts it down or lifts it.` : `${title(name)}: the picture`,
  });
  const prompt = el("p", { class: "prompt", "aria-hidden": "true" }, drawable ? "Draw here" : "Drop a picture here");
  const thumbnail = el("canvas", { class: "thumbnail", width, height, role: "img", "aria-label": `${title(name)} as the model gets it` });
  const thumbnailBox = el("figure", { class: "as-sent unneeded" }, thumbnail, el("figcaption", {}, `As the model gets it, ${width}\u00a0×\u00a0${height}`));
  const invert = drawable && button("Invert", "invert", () => setInverted(!inverted), { class: "button unneeded", "aria-pressed": "false" });
  const camera = cameraOn(stage, { taken: take, say });
  const pad = drawable && makePad(stage, { ...colours, changed: drawn });
  const tools = el(
    "div", { class: "tools" },
    fileButton("Choose a file", "image/*,.tif,.tiff", `Choose a picture for ${title(name)}`, take),
    camera.button,
    invert,
    el("p", { class: "hint" }, `Or paste or drop a picture${drawable ? `, ${background < 128 ? "bright on dark" : "dark on bright"} like the training data` : ""}. Up to ${megabytes(limits.body_bytes)}.`),
    thumbnailBox,
  );
  if (!drawable) showPicture();

  function drawn() {
    picture = null;
    refresh();
    changed();
  }
  async function load(file, isLast) {
    const bitmap = await createImageBitmap(file).catch(() => null);
    if (!isLast()) return;
    picture = { file, bitmap };
    pad?.clear?.();
    setInverted(false, false);
    showPicture();
    refresh();
  }
  function clear() {
    picture = null;
    pad?.clear?.();
    if (!drawable) showPicture();
    refresh();
  }
  function refresh() {
    const empty = !picture && !pad?.strokes?.().length;
    prompt.hidden = !empty;
    if (invert) invert.classList.toggle("unneeded", !picture?.bitmap);
    if (empty) thumbnailBox.classList.add("unneeded");
  }
  function setInverted(on, notify = true) {
    inverted = on;
    if (invert) invert.setAttribute("aria-pressed", String(on));
    if (notify) changed();
  }
  function showPicture() {
    const context = stage.getContext("2d");
    context.clearRect(0, 0, stage.width, stage.height);
    if (picture && !picture.bitmap) say("This browser cannot read such a file; it is sent as it is, without noise.");
    if (picture?.bitmap) drawCovering(context, picture.bitmap);
  }

  /** Compute the pixels that the model will get, RGBA, or null when only the service can read the file. */
  function pixels(noise) {
    let data;
    if (picture) {
      if (!picture.bitmap) return null;
      data = bitmapPixels(picture.bitmap, width, height, channels, background);
    } else {
      data = greyPixels(renderStrokes(pad.strokes(), width, height, colours, look), width, height);
    }
    if (inverted) data.data.forEach((value, i, all) => (all[i] = i % 4 === 3 ? 255 : 255 - value));
    if (noise > 0) spoilPixels(data.data, noise, channels);
    return data;
  }
  async function payload(noise) {
    if (!picture && !pad?.strokes?.().length) return null;
    const data = pixels(noise);
    thumbnailBox.classList.toggle("unneeded", !data);
    if (data) thumbnail.getContext("2d").putImageData(data, 0, 0);
    if (picture && (!data || (noise === 0 && !inverted))) return named(picture.file, picture.file.name ?? `${name}.png`);
    return named(await pngOf(data), `${name}.png`);
  }

  const accepts = file => file.type.startsWith("image/");
  const learn = async blobs => {
    if (!drawable) return;
    const bitmaps = await Promise.all(blobs.map(blob => createImageBitmap(blob)));
    const pictures = bitmaps.map(bitmap => greyOf(bitmapPixels(bitmap, width, height, 1, background)));
    look = learnLook(pictures, width, height, background);
  };
  const element = el("div", { class: drawable ? "picture" : "picture photo" }, el("div", { class: "stage-box" }, stage, prompt, camera.view), tools);
  return { element, payload, load, clear, accepts, learn, icon: drawable ? "image" : "camera" };
}

/** Mix every pixel with a random one; at amount 1 only noise is left. Grey stays grey. */
export function spoilPixels(data, amount, channels) {
  const random = randomNumbers(11);
  for (let i = 0; i < data.length; i += 4) {
    let noise = 255 * random();
    for (let c = 0; c < 3; c++) {
      if (c && channels === 3) noise = 255 * random();
      data[i + c] = (1 - amount) * data[i + c] + amount * noise;
    }
  }
}

/** Crop a picture to the model's shape and size, as the service does with a file. */
function bitmapPixels(bitmap, width, height, channels, background) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = `rgb(${background} ${background} ${background})`;
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  drawCovering(context, bitmap);
  const data = context.getImageData(0, 0, width, height);
  return channels === 1 ? greyPixels(greyOf(data), width, height) : data;
}

function drawCovering(context, bitmap) {
  const { width, height } = context.canvas;
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [w, h] = [bitmap.width * scale, bitmap.height * scale];
  context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
}

function greyOf({ data }) {
  return Uint8ClampedArray.from({ length: data.length / 4 }, (_, i) => 0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]);
}

function greyPixels(values, width, height) {
  const data = new ImageData(width, height);
  values.forEach((value, i) => data.data.set([value, value, value, 255], 4 * i));
  return data;
}

function pngOf(data) {
  const canvas = new OffscreenCanvas(data.width, data.height);
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

function named(blob, filename) {
  blob.filename = filename;
  return blob;
}

/** Make the camera: one press opens it over the stage, the next takes the picture. */
function cameraOn(stage, { taken, say }) {
  const video = el("video", { class: "camera", hidden: true, muted: true, playsInline: true, "aria-label": "What the camera sees" });
  const text = el("span", {}, "Camera");
  const control = el("button", { type: "button", class: "button", onclick: () => (video.hidden ? open() : take()) }, icon("camera"), text);

  async function open() {
    try {
      video.srcObject = await mediaDevices().getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      say(deviceMessage("camera", error));
      return;
    }
    say(null);
    video.hidden = false;
    await video.play();
    await firstFrame(video);
    text.textContent = "Take the picture";
  }
  async function take() {
    if (video.readyState < video.HAVE_CURRENT_DATA) return; // the camera is still warming up
    const canvas = new OffscreenCanvas(stage.width * 2, stage.height * 2);
    drawCovering(canvas.getContext("2d"), await createImageBitmap(video));
    close();
    await taken(await canvas.convertToBlob({ type: "image/png" }));
  }
  function close() {
    video.srcObject?.getTracks().forEach(track => track.stop());
    video.srcObject = null;
    video.hidden = true;
    text.textContent = "Camera";
  }
  const escape = event => event.key === "Escape" && !video.hidden && close();
  control.addEventListener("keydown", escape);
  return { button: control, view: video };
}

/** Wait until a video has a picture to show. */
async function firstFrame(video) {
  while (video.srcObject && (video.readyState < video.HAVE_CURRENT_DATA || !video.videoWidth)) {
    await new Promise(requestAnimationFrame);
  }
}

/** Return the browser's devices, which exist only on https and on localhost. */
export function mediaDevices() {
  if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("", "SecurityError");
  return navigator.mediaDevices;
}

/** Return a message that says what to do when a camera or microphone cannot be used. */
export function deviceMessage(device, error) {
  const advice = {
    NotAllowedError: `The browser was not allowed to use the ${device}. Allow it in the address bar, or choose a file.`,
    NotFoundError: `There is no ${device} here. Choose a file instead.`,
    NotReadableError: `Another program is using the ${device}. Close it and try again.`,
    SecurityError: `Browsers open the ${device} only for pages from this machine or over https. Choose a file instead.`,
  };
  return advice[error.name] ?? `The ${device} cannot be used (${error.message || error.name}). Choose a file instead.`;
}
