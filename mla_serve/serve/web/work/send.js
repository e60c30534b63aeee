// Send samples to POST /predict/batch in pieces that the service accepts.

import { post, RequestError } from "../ask.js";
import { megabytes, title } from "../dom.js";
import { RowError } from "./match.js";

const MOST_BYTES = 8 * 2 ** 20; // of a piece, so that progress is seen
const OFTEN = 500; // rows
const TRIES = 10; // of one piece while the service is busy or does not answer
const FOR_ALL = [401, 403, 404, 405]; // statuses that every further piece would have too

/** Score samples one piece after the other.
 *
 * Args: rows; make(row), its sample as {modality: value or File}, or throws RowError; options, one or more, those of the
 * request; answered(row, reply or null, problem), called for each row; waiting(text), called while the service is busy.
 * Throws RequestError when no further row can be scored, or AbortError.
 */
export async function scoreRows({ rows, make, options, limits, signal, answered, waiting }) {
  const room = Math.min(MOST_BYTES, limits.batch_body_bytes) - 1000; // bytes, without the options
  let piece = [];
  let size = 0;
  const flush = async () => {
    await scorePiece(piece, options, signal, answered, waiting);
    [piece, size] = [[], 0];
  };
  for (const row of rows) {
    signal.throwIfAborted();
    try {
      if (row % OFTEN === 0) await pause(0, signal); // lets the page go on, also while no row can be sent
      const inputs = make(row);
      if (!Object.keys(inputs).length) throw new RowError("All inputs of this row are empty.");
      const sample = new Blob([JSON.stringify(await withFiles(inputs, limits))]);
      if (sample.size > limits.batch_body_bytes - 1000) throw new RowError("This row is larger than the service reads at once.");
      if (piece.length && (piece.length >= limits.batch_items || size + sample.size + 1 > room)) await flush();
      piece.push({ row, sample });
      size += sample.size + 1;
    } catch (error) {
      if (!(error instanceof RowError)) throw error;
      answered(row, null, error.message);
    }
  }
  if (piece.length) await flush();
}

/** Send a piece; one that is refused as a whole is halved, until the row at fault is alone. */
async function scorePiece(piece, options, signal, answered, waiting) {
  const samples = piece.flatMap(({ sample }, i) => (i ? [",", sample] : [sample]));
  const body = new Blob(['{"samples":[', ...samples, `]${Object.entries(options).map(([name, value]) => `,${JSON.stringify(name)}:${JSON.stringify(value)}`).join("")}}`], { type: "application/json" });
  let reply;
  try {
    reply = await persist(() => post("predict/batch", body, signal), signal, waiting);
  } catch (error) {
    const isForAll = error.retryAfter || FOR_ALL.includes(error.status) || error.field in options;
    if (!(error instanceof RequestError) || isForAll) throw error;
    if (piece.length === 1) return answered(piece[0].row, null, error.message);
    const half = Math.ceil(piece.length / 2);
    await scorePiece(piece.slice(0, half), options, signal, answered, waiting);
    return scorePiece(piece.slice(half), options, signal, answered, waiting);
  }
  piece.forEach(({ row }, i) => {
    const result = reply.results[i];
    if (result.problem) answered(row, null, textOf(result.problem));
    else answered(row, result, null);
  });
}

/** Try again after the time that the service asks for. */
async function persist(action, signal, waiting) {
  for (let tries = 1; ; tries++) {
    try {
      const reply = await action();
      waiting("");
      return reply;
    } catch (error) {
      if (!error.retryAfter || tries >= TRIES) throw error;
      waiting(`${error.message} The next try is in ${error.retryAfter} s.`);
      await pause(1000 * error.retryAfter, signal);
    }
  }
}

function pause(milliseconds, signal) {
  return new Promise((done, failed) => {
    const stop = () => {
      clearTimeout(timer);
      failed(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      done();
    }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}

/** Put the content of files into a sample, as data: URLs. */
async function withFiles(sample, limits) {
  for (const [name, value] of Object.entries(sample)) {
    if (!(value instanceof Blob)) continue;
    if (value.size > limits.part_bytes) throw new RowError(`${title(name)}: the file has ${megabytes(value.size)}, the service reads at most ${megabytes(limits.part_bytes)}.`);
    sample[name] = await dataUrl(value);
  }
  return sample;
}

function dataUrl(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new RowError(`The file ${file.name} cannot be read any more.`));
    reader.readAsDataURL(file);
  });
}

function textOf({ field, title: what, detail }) {
  if (!field) return `${what}: ${detail}`;
  const [name, ...column] = field.split(".");
  return [title(name), column.join("."), detail].filter(Boolean).join(": ");
}
