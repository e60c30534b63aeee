// Send the page's inputs to POST /predict, and read the answer or the problem.

const KEY = "mla_serve.key";

/** A request that failed; its message is for the person in front of the page. */
export class RequestError extends Error {
  constructor(message, { status = null, field = null, retryAfter = null } = {}) {
    super(message);
    this.status = status; // of the reply, when there was one
    this.field = field; // the modality at fault, when it is one
    this.retryAfter = retryAfter; // seconds after which another try makes sense
  }
}

/** Ask for an answer. Args: parts, {name: Blob or string}; options, {name: value}. Throws RequestError, or AbortError. */
export function ask(parts, options, signal) {
  return post("predict", formOf({ ...parts, ...options }), signal);
}

/** Send a form, or a Blob of JSON, and read the reply. Throws RequestError, or AbortError. */
export async function post(path, body, signal) {
  let reply;
  try {
    reply = await fetch(path, { method: "POST", body, headers: headers(), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    unreached();
  }
  if (!reply.ok) throw await requestErrorOf(reply);
  return reply.json();
}

/** Fetch one of the service's descriptions. Throws RequestError. */
export async function get(path, read = reply => reply.json()) {
  let reply;
  try {
    reply = await fetch(path, { headers: headers() });
  } catch {
    unreached();
  }
  if (!reply.ok) throw await requestErrorOf(reply);
  return read(reply);
}

/** The API key, kept until the tab is closed. A key with letters that no header can hold is not kept. */
export const key = {
  get: () => sessionStorage.getItem(KEY)?.match(/^[!-~]+$/)?.[0] ?? null,
  set: value => sessionStorage.setItem(KEY, value),
};

// The service answers some paths with a page where HTML is preferred.
function headers() {
  return { Accept: "application/json", ...(key.get() ? { Authorization: `Bearer ${key.get()}` } : {}) };
}

function formOf(parts) {
  const form = new FormData();
  for (const [name, value] of Object.entries(parts)) {
    if (value instanceof Blob) form.append(name, value, value.filename ?? name);
    else form.append(name, value);
  }
  return form;
}

/** Turn an error reply into a message: the service's own problem+json if there is one. */
async function requestErrorOf(reply) {
  const problem = await reply.json().catch(() => ({}));
  const detail = sentence(problem.detail ?? "");
  const seconds = Number(reply.headers.get("Retry-After")) || 2;
  if (reply.status === 429 || reply.status === 503) {
    return new RequestError(`The server is busy. ${detail}`.trim(), { retryAfter: Math.min(seconds, 30) });
  }
  if (reply.status === 401) {
    return new RequestError(key.get() ? "The key is not accepted. Enter another one." : "This service asks for a key. Enter the one that its operator gave you.", { status: 401 });
  }
  const title = problem.title ? sentence(problem.title) : `The service answered with error ${reply.status}.`;
  // The page says at the input that it cannot be used; what is left to say is why.
  return new RequestError(problem.field && detail ? detail : `${title} ${detail}`.trim(), { status: reply.status, field: problem.field });
}

/** Say that nothing can be fetched, also not the rest of this page. */
export function unreachable() {
  return navigator.onLine ? "The service does not answer. Is it still running?" : "You are offline. The answer comes when the connection is back.";
}

/** Fail with it. */
export function unreached() {
  throw new RequestError(unreachable(), { retryAfter: 3 });
}

function sentence(text) {
  const trimmed = text.trim();
  if (!trimmed) return "";
  return trimmed[0].toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
}
