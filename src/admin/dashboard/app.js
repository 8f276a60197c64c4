// The dashboard: holds the last frame, draws it, and wires buttons to changes. Everything shown is text, never markup.
import { Feed, change, look, token } from "./api.js";
import { Backends, limitName, share, stateName } from "./backends.js";
import { askToken, confirm, forceField, numberField } from "./dialogs.js";
import { attribute, el, put } from "./dom.js";
import { History } from "./history.js";
import { Reasons, Workers, certificateLog, changeLog, errorLog } from "./lists.js";
import { Overview } from "./overview.js";
import { currentLanguage, moment, percent, setLanguage, settings, span, t, wantedLanguage, whole, NONE } from "./say.js";

/** How often what does not stream is looked at; also after every change. A configuration can be long. */
const LOOK_MS = 10_000;
const CONFIG_MS = 30_000;
const ERRORS_MS = 5_000;

const $ = (id) => document.getElementById(id);
const state = { frame: null, config: null, changes: [], errors: null, tls: null, link: { name: "connecting" } };
const history = new History();
let view = {};
let waiters = [];

// Drawing.

/** Makes everything anew in the language of now. */
function build() {
  for (const element of document.querySelectorAll("[data-t]")) put(element, t(element.dataset.t));
  for (const element of document.querySelectorAll("[data-t-label]")) attribute(element, "aria-label", t(element.dataset.tLabel));
  document.title = t("title");
  view = {
    overview: new Overview($("overview")),
    backends: new Backends($("upstreams"), { drain, takeBack, change: changeBackend, remove }),
    reasons: new Reasons($("reason-list")),
    workers: new Workers($("worker-table")),
    changes: changeLog($("change-table")),
    errors: errorLog($("error-table")),
    certificates: certificateLog($("certificate-table")),
  };
  drawLink();
  drawNotices();
  drawLogs();
  if (state.frame) draw();
}

let isDue = false;

/** At most once a picture, and not at all while the tab is hidden. */
function drawSoon() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    draw();
  });
}

function draw() {
  const { frame } = state;
  const sample = history.samples[history.samples.length - 1];
  const { proxy } = frame.server;
  put($("about"), `${t("version", { version: proxy.version })} · ${t("up", { time: span(proxy.uptime) })}`);
  view.overview.update(frame, sample, history.samples);
  view.backends.update(frame);
  view.reasons.update(proxy.reasons, history);
  view.workers.update(proxy.workers, sample);
}

function drawLogs() {
  view.changes.update(state.changes);
  $("errors").hidden = $("nav-errors").hidden = state.errors === null;
  if (state.errors !== null) view.errors.update(state.errors);
  const certificates = state.tls?.certificates ?? [];
  $("certificates").hidden = $("nav-certificates").hidden = certificates.length === 0;
  view.certificates.update([...certificates].sort((a, b) => a.not_after - b.not_after));
}

const LINK_MARKS = { live: "●", connecting: "◌", lost: "✕", denied: "✕", token: "✕" };

function drawLink() {
  const { name } = state.link;
  attribute($("status"), "data-state", name);
  put($("status").querySelector(".mark"), LINK_MARKS[name]);
  put($("status-text"), t(name === "live" || name === "connecting" ? name : "lost"));
  $("forget").hidden = token.get() === null;
  document.body.classList.toggle("stale", name !== "live");
}

function notice(kind, mark, text, ...rest) {
  return el("div", { class: `notice ${kind}` }, el("span", { class: "mark", "aria-hidden": "true" }, mark),
    el("span", { class: "words" }, text), ...rest);
}

function lostWords() {
  const { name, said } = state.link;
  if (name === "token") return t("lost_token");
  if (name === "denied") return t("denied_words", { error: said || NONE });
  return state.frame ? t("lost_words", { time: moment(state.frame.server.timestamp) }) : t("lost_never");
}

/** Files of certificates that somebody should look after. */
function expiring() {
  return (state.tls?.certificates ?? []).filter((c) => c.state !== "valid").map((c) => c.cert_file);
}

/** Redrawn only when something else is to be said, so that a button keeps the focus. */
let noticesShown = "";

function drawNotices() {
  const { link, config, frame, tls } = state;
  const isLost = ["lost", "token", "denied"].includes(link.name) || link.isRetry;
  const key = JSON.stringify([currentLanguage(), isLost && lostWords(), isLost && link.name === "token", config?.restart_required,
    config?.file_refused, frame?.ready, tls?.troubles, expiring()]);
  if (key === noticesShown) return;
  noticesShown = key;
  const list = [];
  if (isLost) {
    const button = link.name === "token" ? el("button", { type: "button", onclick: () => wantToken(false) }, t("enter_token"))
      : el("button", { type: "button", onclick: () => feed.start() }, t("retry_now"));
    list.push(notice("bad", "✕", lostWords(), el("span", { class: "quiet", id: "countdown" }), button));
  }
  if (frame && !frame.ready) list.push(notice("warn", "▲", t("draining_server")));
  if (config?.restart_required?.length) list.push(notice("warn", "▲", t("restart_required", { keys: config.restart_required.join(", ") })));
  if (config?.file_refused) list.push(notice("bad", "✕", t("file_refused", { error: config.file_refused })));
  if (tls?.troubles?.length) list.push(notice("bad", "✕", t("tls_troubles", { troubles: tls.troubles.slice(0, 3).join("; ") })));
  if (expiring().length > 0) list.push(notice("warn", "▲", t("tls_expiring", { files: expiring().slice(0, 3).join(", ") })));
  $("notices").replaceChildren(...list);
}

function countDown() {
  const element = $("countdown");
  if (!element) return;
  const left = state.link.retryAt ? Math.ceil((state.link.retryAt - performance.now()) / 1000) : 0;
  put(element, left > 0 ? t("lost_next", { seconds: whole(left) }) : "");
}

/** Said aloud by screen readers; the same stands on the page. */
function announce(text) {
  put($("announce"), text);
}

function toast(text, kind = "good") {
  const element = el("div", { class: `toast ${kind}` }, el("span", { class: "mark", "aria-hidden": "true" }, kind === "good" ? "✓" : "✕"),
    el("span", {}, text), el("button", { type: "button", "aria-label": t("close"), onclick: () => element.remove() }, "×"));
  $("toasts").append(element);
  // What went wrong stays until it is read.
  if (kind === "good") setTimeout(() => element.remove(), 8_000);
}

// Figures.

function onFrame(frame) {
  const before = state.frame;
  state.frame = frame;
  history.add(frame);
  drawSoon();
  if (before?.ready !== frame.ready) drawNotices();
  const configuration = ({ etag, restart_required, file_refused }) => JSON.stringify([etag, restart_required, file_refused]);
  if (configuration(before ?? {}) !== configuration(frame)) lookAround();
  for (const waiter of waiters.splice(0)) waiter();
}

function onState(name, { retryMs, said }) {
  const before = state.link;
  if (name === before.name && name === "live") return;
  const wasLost = before.name !== "live" && before.name !== "connecting" || before.isRetry;
  // While it tries again the notice stays: it isn't back yet.
  state.link = { name, said: said ?? before.said, retryAt: retryMs ? performance.now() + retryMs : 0, isRetry: name === "connecting" && wasLost && before.name !== "token" };
  drawLink();
  drawNotices();
  countDown();
  if (name === "token") {
    const wasWrong = token.get() !== null;
    token.set(null);
    drawLink();
    wantToken(wasWrong);
  } else if (["lost", "denied"].includes(name) && !wasLost) {
    announce(lostWords());
  } else if (name === "live") {
    hasErrors = true;
    announce(wasLost && before.name !== "token" ? t("back") : "");
    lookAround();
  }
}

const feed = new Feed(onFrame, onState);

function wantToken(wasWrong) {
  askToken({ wasWrong, done: () => feed.start() });
}

/** The next frame, or two and a half seconds. */
function nextFrame() {
  return new Promise((resolve) => {
    waiters.push(resolve);
    setTimeout(resolve, 2_500);
  });
}

/** What does not stream. A look that fails changes nothing: the stream tells of lost connections. */
function lookAround() {
  lookAtConfig();
  lookAtCertificates();
  lookAtChanges();
}

async function lookAtConfig() {
  if (state.link.name !== "live") return;
  try {
    state.config = await look("/api/v1/config");
    const level = state.config.config?.log?.level;
    if (level) $("level").value = level;
  } catch { /* as it was */ }
  drawNotices();
}

async function lookAtChanges() {
  if (state.link.name !== "live") return;
  try {
    state.changes = (await look("/api/v1/changes")).changes ?? [];
  } catch { /* as they were */ }
  drawLogs();
}

async function lookAtCertificates() {
  if (state.link.name !== "live") return;
  try {
    state.tls = await look("/api/v1/certificates");
  } catch { /* as it was */ }
  drawLogs();
  drawNotices();
}

let hasErrors = true;

async function lookAtErrors() {
  if (state.link.name !== "live" || document.hidden || !hasErrors) return;
  try {
    const { errors } = await look("/api/v1/errors");
    state.errors = [...(errors ?? [])].sort((a, b) => b.timestamp - a.timestamp);
  } catch (failure) {
    // An older server has none; no need to ask it again and again.
    if (failure.status === 404) [state.errors, hasErrors] = [null, false];
  }
  drawLogs();
}

// Changes.

const current = ({ upstream, backend_id: id }) => state.frame.backends.find((b) => b.upstream === upstream && b.backend_id === id);
const named = ({ upstream, backend_id: id }) => ({ upstream, backend_id: id });

function nowLines(backend) {
  const now = current(backend);
  if (!now) return [t("error_404")];
  return [t("error_now", { state: stateName(now.state), weight: whole(now.weight), limit: limitName(now.max_conn) })];
}

/** What all confirmations have in common. */
function ask({ done, subject, ...more }) {
  confirm({
    etag: () => state.frame.etag,
    nextFrame,
    nowLines: () => (subject ? nowLines(subject) : []),
    failed: (lines) => toast(lines.join(" "), "bad"),
    unauthorised: () => wantToken(token.get() !== null),
    ...more,
    done(answer) {
      const what = t(answer.persisted ? "ok_persisted" : "ok_unpersisted", { what: done });
      const keys = answer.restart_required ?? [];
      const more = keys.length > 0 ? [t("ok_restart", { keys: keys.join(", ") })] : [];
      toast([what, ...more, ...(answer.warnings ?? [])].join(" "));
      lookAround();
    },
  });
}

/** What becomes of the others when this one gets nothing any more. */
function restWords(backend) {
  const { backends } = state.frame;
  const { upstream } = backend;
  const others = backends.filter((b) => b.upstream === upstream && b.backend_id !== backend.backend_id && b.state === "active");
  if (others.length === 0) return t("drain_last", { upstream });
  return t("drain_rest", { share: percent(share(backend, backends) ?? 0), count: whole(others.length), upstream });
}

function drain(backend) {
  const force = forceField();
  const name = backend.backend_id;
  ask({
    subject: backend,
    title: t("drain_title", { backend: name }),
    words: [t("drain_words", { count: whole(backend.in_flight) }), restWords(backend)],
    fields: [force.element],
    label: t("drain"),
    send: (choice) => change("POST", "/api/v1/backends/disconnect", { ...named(backend), ...force.body() }, choice),
    done: t("ok_drain", { backend: name }),
  });
}

function takeBack(backend) {
  const name = backend.backend_id;
  ask({
    subject: backend,
    title: t("take_back_title", { backend: name }),
    words: [t("take_back_words")],
    label: t("take_back"),
    send: (choice) => change("POST", "/api/v1/backends/connect", named(backend), choice),
    done: t("ok_take_back", { backend: name }),
  });
}

function changeBackend(backend) {
  const { upstream, backend_id: id } = backend;
  const weight = numberField({ name: "weight", label: t("weight_label", { value: whole(backend.weight) }), words: t("weight_words"), value: backend.weight, min: 1, max: 1000 });
  const maxConn = numberField({ name: "max_conn", label: t("max_conn_label", { value: limitName(backend.max_conn) }), words: t("max_conn_words"), value: backend.max_conn, min: 0 });
  const wanted = () => {
    const fields = { id };
    if (weight.input.value.trim() !== String(backend.weight)) fields.weight = Number(weight.input.value);
    if (maxConn.input.value.trim() !== String(backend.max_conn)) fields.max_conn = Number(maxConn.input.value);
    return fields;
  };
  ask({
    subject: backend,
    title: t("change_title", { backend: id }),
    words: [t("change_words")],
    fields: [weight.element, maxConn.element],
    label: t("change_do"),
    asksForValues: true,
    check() {
      // An empty field would be read as 0, which means something else.
      if (![weight, maxConn].every(({ input }) => Number.isInteger(input.valueAsNumber))) return t("number_needed");
      return Object.keys(wanted()).length === 1 ? t("nothing_changed") : null;
    },
    send: (choice) => change("PUT", "/api/v1/backends/update", { upstream, backend: wanted() }, choice),
    done: t("ok_change", { backend: id }),
  });
}

function remove(backend) {
  const force = forceField();
  const name = backend.backend_id;
  ask({
    subject: backend,
    title: t("remove_title", { backend: name }),
    words: [t("remove_words", { count: whole(backend.in_flight) }), restWords(backend), t("remove_back", { address: backend.address })],
    fields: [force.element],
    label: t("remove"),
    isDanger: true,
    send: (choice) => change("DELETE", "/api/v1/backends/remove", { ...named(backend), ...force.body() }, choice),
    done: t("ok_remove", { backend: name }),
  });
}

function setLevel() {
  const level = $("level").value;
  const before = state.config?.config?.log?.level;
  // It shows what is in use until the change is made.
  if (before) $("level").value = before;
  if (!state.frame) return;
  ask({
    title: t("level_title", { level }),
    words: [t("level_words")],
    label: t("level_set"),
    send: (choice) => change("PUT", "/api/v1/log/level", { level }, choice),
    done: t("ok_level", { level }),
  });
}

// Settings.

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function setTheme(theme) {
  const wanted = ["light", "dark"].includes(theme) ? theme : "auto";
  $("theme").value = wanted;
  const isDark = wanted === "dark" || (wanted === "auto" && prefersDark.matches);
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
}

function start() {
  setTheme(settings.get("theme"));
  prefersDark.addEventListener("change", () => setTheme(settings.get("theme")));
  setLanguage(wantedLanguage());
  $("language").value = currentLanguage();
  $("theme").addEventListener("change", () => {
    settings.set("theme", $("theme").value);
    setTheme($("theme").value);
  });
  $("language").addEventListener("change", () => {
    settings.set("language", $("language").value);
    setLanguage($("language").value);
    build();
  });
  $("level").addEventListener("change", setLevel);
  $("forget").addEventListener("click", () => {
    token.set(null);
    location.reload();
  });
  build();
  feed.start();
  setInterval(countDown, 1_000);
  setInterval(lookAtChanges, LOOK_MS);
  setInterval(lookAtConfig, CONFIG_MS);
  setInterval(lookAtCertificates, LOOK_MS);
  setInterval(lookAtErrors, ERRORS_MS);
  setTimeout(lookAtErrors, 500);
  // A tab that was asleep tries at once.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    if (state.link.name === "lost") feed.start();
    lookAtErrors();
  });
}

start();
