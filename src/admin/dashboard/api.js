// The way to the management API. Owns the token, requests and the stream of figures; knows nothing of the page.

const TOKEN = "speedmimi.token";
/** A stream that was silent for so long is dead: it speaks every second. */
const SILENCE_MS = 6_000;
const BACKOFF_MS_MAX = 30_000;

// Only in this tab, and gone with it. Where the browser forbids even that, only in this page.
let kept = null;

export const token = {
  get() {
    try { return sessionStorage.getItem(TOKEN) ?? kept; } catch { return kept; }
  },
  set(value) {
    kept = value;
    try {
      if (value === null) sessionStorage.removeItem(TOKEN); else sessionStorage.setItem(TOKEN, value);
    } catch { /* kept above */ }
  },
};

/** What went wrong: `status` 0 when no answer came; `said` are the server's own words. */
export class Failure extends Error {
  constructor(status, said) {
    super(said || `status ${status}`);
    this.status = status;
    this.said = said;
  }
}

function fields(more) {
  const secret = token.get();
  return secret === null ? { ...more } : { ...more, Authorization: "Bearer " + secret };
}

async function open(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "omit", redirect: "error", ...options });
  } catch (error) {
    throw new Failure(0, error.name === "AbortError" ? "" : error.message);
  }
  if (response.ok) return response;
  let said = "";
  try { said = String((await response.json()).error ?? ""); } catch { /* no words */ }
  throw new Failure(response.status, said);
}

/** Looks: the JSON at `path`. */
export async function look(path) {
  const signal = AbortSignal.timeout(15_000);
  const response = await open(path, { headers: fields(), signal });
  return response.json().catch(() => { throw new Failure(0, ""); });
}

/** Changes something, if the configuration is still the one that `etag` names. */
export async function change(method, path, body, { etag, persist }) {
  const headers = fields({ "Content-Type": "application/json" });
  if (etag) headers["If-Match"] = etag;
  const query = persist ? "" : "?persist=false";
  const signal = AbortSignal.timeout(60_000);
  const response = await open(path + query, { method, headers, body: JSON.stringify(body), signal });
  return response.json().catch(() => ({}));
}

/**
 * Follows the figures, and comes back by itself after a loss. `EventSource` can't send a token, so the stream is read
 * by hand.
 */
export class Feed {
  #onFrame;
  #onState;
  #stop = null;
  #timer = 0;
  #losses = 0;

  /** `onState(state, details)`: "connecting", "live", "lost" (with `retryMs`), "token", "denied". */
  constructor(onFrame, onState) {
    this.#onFrame = onFrame;
    this.#onState = onState;
  }

  /** Connects now, whatever was. */
  start() {
    clearTimeout(this.#timer);
    this.#stop?.abort();
    const stop = new AbortController();
    this.#stop = stop;
    this.#onState("connecting", {});
    this.#follow(stop).catch((failure) => {
      if (this.#stop === stop) this.#lost(failure);
    });
  }

  #lost(failure) {
    this.#stop = null;
    if (failure.status === 401) return this.#onState("token", failure);
    // A jitter, so that many tabs don't come back at once.
    const backoff = Math.min(BACKOFF_MS_MAX, 1000 * 2 ** this.#losses) * (0.8 + Math.random() * 0.4);
    this.#losses = Math.min(this.#losses + 1, 6);
    this.#timer = setTimeout(() => this.start(), backoff);
    this.#onState(failure.status === 403 ? "denied" : "lost", { retryMs: backoff, said: failure.said });
  }

  async #follow(stop) {
    let watch = setTimeout(() => stop.abort(), SILENCE_MS);
    try {
      const response = await open("/api/v1/stats/stream", { headers: fields({ Accept: "text/event-stream" }), signal: stop.signal });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) throw new Failure(0, "");
        clearTimeout(watch);
        watch = setTimeout(() => stop.abort(), SILENCE_MS);
        const events = (rest + value).split(/\r?\n\r?\n/);
        rest = events.pop();
        for (const event of events) this.#take(event);
      }
    } catch (error) {
      throw error instanceof Failure ? error : new Failure(0, "");
    } finally {
      clearTimeout(watch);
    }
  }

  #take(event) {
    const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
    if (lines.length === 0) return;
    const frame = JSON.parse(lines.map((line) => line.slice(5).trimStart()).join("\n"));
    if (this.#losses !== 0 || !frame) this.#losses = 0;
    this.#onState("live", {});
    this.#onFrame(frame);
  }
}
