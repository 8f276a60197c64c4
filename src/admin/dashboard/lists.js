// What happened: answers of the proxy's own by reason, the last errors, workers, the log of changes. Owns their elements.
import { el, put, row, table } from "./dom.js";
import { count, moment, rate, reasonWords, span, t, whole, NONE } from "./say.js";

/** Who has to act, by reason: what the proxy's own table says. Others are the operator's. */
const BLAME = {
  client: ["bad_request", "denied", "no_route", "method_not_served", "head_timeout", "body_timeout", "body_too_large",
    "target_too_long", "head_too_large", "client_closed", "client_stalled", "version_not_served", "misdirected",
    "deadline_exceeded", "tunnel_idle"],
  backend: ["connect_failed", "backend_closed", "backend_refused", "backend_protocol", "backend_upgrade",
    "backend_unresolved", "backend_truncated", "backend_tls", "backend_certificate", "connect_timeout", "response_timeout",
    "backend_stalled"],
  operator: ["no_backend", "backends_full", "queue_full", "queue_timeout", "no_descriptor", "no_local_port", "backend_cut",
    "upgrade_unsupported", "shutdown"],
};
const PAGE = 20;

function blame(code) {
  const found = Object.keys(BLAME).find((who) => BLAME[who].includes(code));
  return t("blame_" + (found ?? "unknown"));
}

const empty = (key) => el("p", { class: "quiet empty" }, t(key));

export class Reasons {
  constructor(list) {
    this.list = list;
    this.lines = new Map();
    list.replaceChildren();
  }

  update(reasons, history) {
    const codes = Object.keys(reasons).map((code) => ({ code, total: reasons[code], recent: history.recent(code) }));
    codes.sort((a, b) => b.recent.count - a.recent.count || b.total - a.total);
    for (const [code, line] of this.lines) {
      if (!(code in reasons)) {
        line.element.remove();
        this.lines.delete(code);
      }
    }
    codes.forEach(({ code, total, recent }, at) => {
      if (!this.lines.has(code)) this.lines.set(code, this.#line(code));
      const line = this.lines.get(code);
      if (this.list.children[at] !== line.element) this.list.insertBefore(line.element, this.list.children[at] ?? null);
      put(line.total, count(total));
      put(line.recent, recent.seconds > 0 ? t("recent", { count: count(recent.count), time: span(recent.seconds) }) : "");
    });
    const none = this.list.querySelector(".empty");
    if (codes.length === 0 && !none) this.list.append(el("li", { class: "quiet empty" }, t("no_reasons")));
    if (codes.length > 0) none?.remove();
  }

  #line(code) {
    const [happened, cure] = reasonWords(code);
    const total = el("b", { class: "total" });
    const recent = el("span", { class: "note" });
    const head = el("p", { class: "happened" }, el("b", {}, happened), " ", el("code", {}, code), " ",
      el("span", { class: "note" }, "· " + t("blame", { who: blame(code) })));
    const cureLine = el("p", { class: "cure" }, el("span", { class: "quiet" }, t("act") + " "), cure);
    const element = el("li", {}, el("div", { class: "counts" }, total, recent), el("div", {}, head, cureLine));
    return { element, total, recent };
  }
}

/** A table of entries, newest first, that shows more when asked to. */
class Log {
  constructor(root, caption, columns, cells, none) {
    Object.assign(this, { root, caption, columns, cells, none, shown: PAGE, entries: [] });
    this.update([]);
  }

  update(entries) {
    const same = JSON.stringify(entries) === JSON.stringify(this.entries);
    if (same && this.root.childElementCount > 0) return;
    this.entries = entries;
    this.#draw();
  }

  #draw() {
    if (this.entries.length === 0) return this.root.replaceChildren(empty(this.none));
    const hadFocus = this.root.contains(document.activeElement);
    const { whole: element, body } = table(this.caption, this.columns);
    element.classList.add("cards");
    for (const entry of this.entries.slice(0, this.shown)) body.append(row(this.columns, this.cells(entry)));
    const left = this.entries.length - this.shown;
    const more = left > 0 ? el("button", { type: "button", class: "more", onclick: () => this.#more() }, t("more", { count: whole(Math.min(PAGE, left)) })) : null;
    this.root.replaceChildren(element, ...(more ? [more] : []));
    if (hadFocus && more) more.focus();
  }

  #more() {
    this.shown += PAGE;
    this.#draw();
  }
}

const noted = (main, note) => (note ? [el("span", {}, main), el("span", { class: "note" }, note)] : el("span", {}, main));

export function errorLog(root) {
  const columns = ["time", "reason", "request", "where", "client", "detail"].map((key) => ({ title: t(key), class: key }));
  const cells = (e) => {
    const where = [e.upstream, e.backend].filter(Boolean).join("/");
    const timer = e.timer ? `${t("timer")} ${e.timer}` : "";
    return [
      moment(e.timestamp),
      noted(reasonWords(String(e.reason))[0], `${e.status ? `${e.status} · ` : ""}${e.reason}`),
      noted([e.method, e.path].filter(Boolean).join(" ") || NONE, e.request_id ? `${t("request_id")} ${e.request_id}` : ""),
      noted(e.route || NONE, where),
      e.client || NONE,
      noted(e.detail || timer || NONE, e.detail ? timer : ""),
    ];
  };
  return new Log(root, t("errors"), columns, cells, "no_errors");
}

const CERTIFICATE_PILLS = { valid: ["active", "●"], expires_soon: ["draining", "▲"], not_yet_valid: ["draining", "▲"], expired: ["down", "✕"] };
const NAMES_SHOWN = 3;

/** The certificates in use, those first that expire first. */
export function certificateLog(root) {
  const columns = ["certificate", "state", "expires", "used_for", "file"].map((key) => ({ title: t(key), class: key }));
  const cells = (c) => {
    const names = c.names.slice(0, NAMES_SHOWN).join(", ") || NONE;
    const more = c.names.length > NAMES_SHOWN ? t("more_names", { count: whole(c.names.length - NAMES_SHOWN) }) : "";
    const [pill, mark] = CERTIFICATE_PILLS[c.state] ?? ["down", "✕"];
    const state = [el("span", { class: "pill", "data-state": pill }, el("span", { class: "mark", "aria-hidden": "true" }, mark), t("certificate_" + c.state))];
    if (c.trouble) state.push(el("span", { class: "note" }, c.trouble));
    const uses = c.used_for.map((use) => (use === "clients" ? t("for_clients") : use)).join(", ");
    return [
      noted(names, [more, c.default ? t("certificate_default") : ""].filter(Boolean).join(" · ")),
      state,
      noted(t("days_left", { count: whole(c.days_left) }), moment(c.not_after * 1000)),
      uses || NONE,
      el("span", { class: "paths" }, c.cert_file),
    ];
  };
  return new Log(root, t("certificates"), columns, cells, "no_certificates");
}

const VERBS = ["replace configuration", "patch configuration", "reload from file", "reload certificates", "add backend to", "remove backend",
  "update backend", "disconnect backend", "connect backend", "set log level"];

/** The server's words for a change, in the reader's language. */
function what(text) {
  const verb = VERBS.find((known) => text === known || text.startsWith(known + " "));
  return verb ? t("what_" + verb) + text.slice(verb.length) : text;
}

export function changeLog(root) {
  const columns = ["time", "what", "changed", "who"].map((key) => ({ title: t(key), class: key }));
  const cells = (c) => {
    const refused = c.refused ? [el("span", { class: "pill", "data-state": "down" }, el("span", { class: "mark", "aria-hidden": "true" }, "✕"), t("refused")),
      el("span", { class: "note" }, c.refused)] : el("span", { class: "paths" }, (c.changed || []).join(", ") || NONE);
    return [moment(c.timestamp), what(String(c.what)), refused, noted(c.who, c.from)];
  };
  return new Log(root, t("changes"), columns, cells, "no_changes");
}

export class Workers {
  constructor(root) {
    this.root = root;
    this.lines = [];
    this.columns = ["worker", "rate_10s", "in_flight", "open_now", "parked", "tunnels", "accepted", "requests_total"]
      .map((key, at) => ({ title: t(key), class: at > 0 ? "number" : "name" }));
  }

  update(workers, sample) {
    if (this.lines.length !== workers.length) this.#build(workers.length);
    workers.forEach((worker, at) => {
      const values = [whole(worker.worker), rate(sample.workerRates[at]), count(worker.in_flight), count(worker.active),
        count(worker.parked), count(worker.tunnels), count(worker.accepted), count(worker.requests)];
      values.forEach((value, n) => put(this.lines[at].cells[n].firstChild, value));
    });
  }

  #build(length) {
    const { whole: element, body } = table(t("workers"), this.columns);
    element.classList.add("cards", "narrow");
    this.lines = Array.from({ length }, () => row(this.columns, this.columns.map(() => el("span", {}))));
    body.append(...this.lines);
    this.root.replaceChildren(element);
  }
}
