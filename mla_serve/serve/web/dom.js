// Small helpers to build the page, independent of the model.

/** Make an element: el("p", {class: "hint", onclick: f}, "text", child). `undefined`, `null` and `false` are skipped. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && !key.includes("-")) element[key] = value;
    else element.setAttribute(key === "class" ? "class" : key, value === true ? "" : value);
  }
  element.append(...children.filter(child => child !== undefined && child !== null && child !== false));
  return element;
}

const STROKES = {
  image: "M4 17.5V20h2.5L18 8.5 15.5 6zM14 7.5l2.5 2.5",
  audio: "M12 4a2.5 2.5 0 0 1 2.5 2.5v5a2.5 2.5 0 0 1-5 0v-5A2.5 2.5 0 0 1 12 4zM6 11.5a6 6 0 0 0 12 0M12 17.5V20",
  text: "M5 7V5h14v2M12 5v14M9.5 19h5",
  vector: "M5 19V11M10 19V5M15 19v-6M20 19V8",
  columns: "M4 5h16v14H4zM4 10h16M4 14.5h16M10 10v9",
  folder: "M12 15V4M8 8l4-4 4 4M5 15v4h14v-4",
  camera: "M4 8h3.5L9 5.5h6L16.5 8H20v11H4zM12 16.5a3.3 3.3 0 1 0 0-6.6 3.3 3.3 0 0 0 0 6.6z",
  play: "M8 5.5v13l10-6.5z",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h10v10H9zM5 15V5h10",
  link: "M10 14a4 4 0 0 0 6 .5l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6-.5l-3 3a4 4 0 0 0 6 6l1-1",
  download: "M12 4v11M8 11l4 4 4-4M5 19h14",
  print: "M7 9V4h10v5M7 17H4V9h16v8h-3M7 14h10v6H7z",
  again: "M19 12a7 7 0 1 1-2-5M17 3v4h-4",
  clear: "M6 6l12 12M18 6L6 18",
  invert: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
};

/** Make a decorative line icon. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", STROKES[name] ?? STROKES.vector);
  svg.append(path);
  return svg;
}

/** Make a button with an icon. */
export function button(text, iconName, onclick, properties = {}) {
  return el("button", { type: "button", class: "button", onclick, ...properties }, icon(iconName), el("span", {}, text));
}

/** Make a button that opens the file chooser; `chosen` gets the file. */
export function fileButton(text, accept, label, chosen) {
  const input = el("input", { type: "file", accept, class: "unseen", "aria-label": label });
  input.addEventListener("change", () => {
    if (input.files.length) chosen(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  return el("label", { class: "button" }, input, icon("folder"), el("span", {}, text));
}

/** Write a name for people: rear_camera -> rear camera. */
export function plain(name) {
  return name.replaceAll("_", " ");
}

/** The same at the beginning of a line: rear_camera -> Rear camera. */
export function title(name) {
  const words = plain(name);
  return words[0].toUpperCase() + words.slice(1);
}

/** The class that gives an element the hue of a modality, as --hue. See palette.css. */
export function hueOf(model, name) {
  return `hue-${Object.keys(model.modalities).indexOf(name) % 8}`;
}

/** Split a text where a line may break, also after "_" and the like, where browsers would not break it. A text that shows nothing is named. */
export function breakable(text) {
  if (!/[^\p{C}\p{Z}\u115f\u1160\u2800\u3164\uffa0]/u.test(text)) return ["(blank)"];
  const parts = text.split(/(?<=[_\-/.,;:|+&])(?=[\p{L}\p{N}])/u);
  return parts.flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part]));
}

/** Write a share of one in per cent. A value below 1 is never written as 100 %. */
export function percent(share) {
  if (share < 1 && share >= 0.9995) return "> 99.9 %";
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

/** Write a number of bytes. */
export function megabytes(bytes) {
  return `${Number((bytes / 2 ** 20).toFixed(1))} MB`;
}

/** Make a generator of random numbers in [0, 1), the same for the same seed, so that noise does not flicker. */
export function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
