// The drawing pad: the strokes of a pen, and their picture, small and grey like those of the training data.
//
// Points are {x, y} from 0 to 1 on the pad. Wherever and however large somebody draws, the picture has the line width, the
// extent and the centring of the training data (for MNIST: 20 of 28 pixels, centre of mass in the middle).

const FINER = 4; // the picture is drawn this much larger and averaged down, which gives soft edges
const SLANT = 1.06; // edges measure longer on a grid: lines drawn 2 to 3.6 pixels wide were found 5 to 6 % thinner
const OFF_CENTRE = 0.04; // of the picture's size; MNIST is centred to the pixel, 0.036
const LARGEST_ZOOM = 3; // a dot stays a dot
export const USUAL_LOOK = { extent: 20 / 28, line: 2.4 / 28, centred: true };

/** Let a canvas be drawn on by pointer or keyboard. Returns {strokes, clear, paint}. */
export function makePad(canvas, { ink, paper, changed }) {
  let strokes = [];
  let cursor = null; // where the keyboard's pen is
  let penDown = false;

  function paint() {
    const context = canvas.getContext("2d");
    context.fillStyle = grey(paper);
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.strokeStyle = context.fillStyle = grey(ink);
    drawStrokes(context, strokes, 0.075 * canvas.width, ({ x, y }) => [x * canvas.width, y * canvas.height]);
    if (cursor && canvas === document.activeElement) drawCursor(context, cursor, penDown);
  }
  function drawCursor(context, { x, y }, filled) {
    context.beginPath();
    context.arc(x * canvas.width, y * canvas.height, 8, 0, 7);
    context.lineWidth = 2;
    context.stroke();
    if (filled) context.fill();
  }
  const pointOf = event => {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  };
  function extend(point) {
    strokes.at(-1).push(point);
    paint();
    changed();
  }

  canvas.addEventListener("pointerdown", event => {
    if (event.button !== 0) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    cursor = null;
    strokes.push([]);
    extend(pointOf(event));
  });
  canvas.addEventListener("pointermove", event => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    strokes.at(-1).push(...passed.slice(0, -1).map(pointOf));
    extend(pointOf(event));
  });
  canvas.addEventListener("keydown", event => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === " ") penDown = !penDown;
    if (!step && event.key !== " ") return;
    event.preventDefault();
    cursor ??= { x: 0.5, y: 0.2 };
    if (event.key === " " && penDown) strokes.push([{ ...cursor }]);
    if (step) cursor = { x: within(cursor.x + 0.04 * step[0]), y: within(cursor.y + 0.04 * step[1]) };
    if (penDown) extend({ ...cursor });
    else paint();
  });
  canvas.addEventListener("blur", () => {
    penDown = false;
    paint();
  });
  paint();
  return {
    paint,
    strokes: () => strokes,
    clear() {
      strokes = [];
      penDown = false;
      paint();
    },
  };
}

/** Draw strokes as the model expects them: grey values, width x height, row by row. */
export function renderStrokes(strokes, width, height, { ink, paper }, look = USUAL_LOOK) {
  const canvas = new OffscreenCanvas(width * FINER, height * FINER);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const place = placing(strokes, canvas, look);
  context.strokeStyle = context.fillStyle = "#fff";
  drawStrokes(context, strokes, look.line * canvas.width, place);
  const fine = coverage(context);
  const shift = look.centred ? toCentreOfMass(fine, canvas.width, canvas.height) : { x: 0, y: 0 };
  const share = averageDown(fine, width, height, shift);
  return Uint8ClampedArray.from(share, covered => Math.round(paper + covered * (ink - paper)));
}

/** Return the function that moves and scales points: the drawing in the middle, as large as in the training data. */
function placing(strokes, canvas, look) {
  const xs = strokes.flat().map(point => point.x);
  const ys = strokes.flat().map(point => point.y);
  const [left, right, top, bottom] = [least(xs), -least(xs.map(x => -x)), least(ys), -least(ys.map(y => -y))];
  const longest = Math.max(right - left, bottom - top, 1e-6);
  const zoom = Math.min((look.extent - look.line) / longest, LARGEST_ZOOM) * Math.min(canvas.width, canvas.height);
  return ({ x, y }) => [
    canvas.width / 2 + (x - (left + right) / 2) * zoom,
    canvas.height / 2 + (y - (top + bottom) / 2) * zoom,
  ];
}

/** Draw strokes as smooth lines with round ends; `place` turns a point into canvas coordinates. */
function drawStrokes(context, strokes, lineWidth, place) {
  context.lineWidth = lineWidth;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    const points = stroke.map(place);
    context.beginPath();
    context.moveTo(...points[0]);
    for (let i = 1; i < points.length - 1; i++) context.quadraticCurveTo(...points[i], ...middle(points[i], points[i + 1]));
    context.lineTo(...points.at(-1));
    context.stroke();
  }
}

/** Read how much of each fine pixel is covered, 0 to 1. */
function coverage(context) {
  const { data } = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
  return Float32Array.from({ length: data.length / 4 }, (_, i) => data[4 * i + 3] / 255);
}

/** Return by how many pixels to move a picture so that its centre of mass is in its middle. */
function toCentreOfMass(share, width, height) {
  let [sum, x, y] = [0, 0, 0];
  share.forEach((value, i) => {
    sum += value;
    x += value * ((i % width) + 0.5);
    y += value * (Math.floor(i / width) + 0.5);
  });
  return sum ? { x: width / 2 - x / sum, y: height / 2 - y / sum } : { x: 0, y: 0 };
}

/** Move a fine picture and average it down to width x height. */
function averageDown(fine, width, height, shift) {
  const result = new Float32Array(width * height);
  fine.forEach((value, i) => {
    const x = Math.floor(((i % (width * FINER)) + Math.round(shift.x)) / FINER);
    const y = Math.floor((Math.floor(i / (width * FINER)) + Math.round(shift.y)) / FINER);
    if (x >= 0 && x < width && y >= 0 && y < height) result[y * width + x] += value / FINER ** 2;
  });
  return result;
}

/** Measure line width, extent and centring on pictures from the training data, each width x height grey values. */
export function learnLook(pictures, width, height, paper) {
  const looks = pictures.map(values => measure(Float32Array.from(values, v => Math.abs(v - paper) / 255), width, height));
  const look = { extent: median(looks.map(l => l.extent)), line: median(looks.map(l => l.line)), centred: median(looks.map(l => l.offset)) < OFF_CENTRE };
  const plausible = look.extent > 0.3 && look.extent <= 1 && look.line > 0.02 && look.line < 0.25;
  return plausible ? look : USUAL_LOOK;
}

/** Measure one picture of covered shares. A line of width w has the area w L and the circumference 2 L. */
function measure(share, width, height) {
  const at = (x, y) => (x < width && y < height ? share[y * width + x] : 0);
  let [area, edge] = [0, 0];
  const xs = [], ys = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      area += at(x, y);
      edge += Math.hypot(at(x + 1, y) - at(x, y), at(x, y + 1) - at(x, y));
      if (at(x, y) > 0.1) xs.push(x), ys.push(y);
    }
  }
  const shift = toCentreOfMass(share, width, height);
  const extent = Math.max(-least(xs.map(x => -x)) - least(xs), -least(ys.map(y => -y)) - least(ys)) + 1;
  const size = Math.min(width, height);
  return { extent: extent / size, line: (SLANT * 2 * area) / (edge || 1) / size, offset: Math.hypot(shift.x, shift.y) / size };
}

export const grey = value => `rgb(${value} ${value} ${value})`;
const within = value => Math.min(1, Math.max(0, value));
const middle = ([ax, ay], [bx, by]) => [(ax + bx) / 2, (ay + by) / 2];
const least = values => values.reduce((a, b) => Math.min(a, b), Infinity);
const median = values => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
