// Upstreams with their backends: what each does, and the buttons. Owns the rows; what a button does is told to it.
import { attribute, el, put, row, table } from "./dom.js";
import { count, ms, percent, rate, span, t, whole, NONE } from "./say.js";

const OUT = ["draining", "disconnected"];
/** A shape for each state beside its word, for the eye that skims. */
const MARKS = { active: "●", draining: "◐", disconnected: "○", ejected: "▲", down: "✕", removed: "◐" };

export const isOut = (backend) => OUT.includes(backend.state);
export const stateName = (state) => t("state_" + state);
export const limitName = (max) => (max > 0 ? whole(max) : t("unlimited"));
const perSecond = (backends) => backends.reduce((sum, b) => sum + b.requests.per_second_10s, 0);
const part = (backend, sum) => (sum > 0 ? (backend.requests.per_second_10s / sum) * 100 : null);
/** Its part of its upstream's requests over the last ten seconds, percent; null when there were none. */
export const share = (backend, all) => part(backend, perSecond(all.filter((b) => b.upstream === backend.upstream)));

export class Backends {
  /** `actions`: `{drain, takeBack, change, remove}`, each called with a backend's figures of now. */
  constructor(root, actions) {
    this.root = root;
    this.actions = actions;
    this.upstreams = new Map();
    root.replaceChildren();
    this.columns = [
      { title: t("backend"), class: "name" },
      { title: t("state"), class: "state" },
      { title: t("share"), class: "number" },
      { title: t("rate"), class: "number" },
      { title: t("weight"), class: "number" },
      { title: t("flight_limit"), class: "number" },
      { title: t("p50_p99"), class: "number wide" },
      { title: t("failures"), class: "number" },
      { title: t("report"), class: "number" },
      { title: t("actions"), class: "actions" },
    ];
  }

  update({ backends, removed, server }) {
    const held = document.activeElement;
    const groups = new Map();
    for (const backend of [...backends, ...removed.map((gone) => ({ ...gone, isRemoved: true }))]) {
      if (!groups.has(backend.upstream)) groups.set(backend.upstream, []);
      groups.get(backend.upstream).push(backend);
    }
    for (const [name, upstream] of this.upstreams) {
      if (!groups.has(name)) {
        upstream.element.remove();
        this.upstreams.delete(name);
      }
    }
    for (const [name, members] of groups) this.#group(name).update(members, server.timestamp);
    if (groups.size === 0) this.root.replaceChildren(el("p", { class: "panel quiet empty" }, t("no_backends")));
    else this.root.querySelector(":scope > .empty")?.remove();
    // Where the row with the focus is gone, the focus goes on from the heading and not from the page's begin.
    if (held && held !== document.body && !held.isConnected) document.getElementById("backends-title").focus();
  }

  #group(name) {
    if (!this.upstreams.has(name)) {
      const upstream = new Upstream(name, this.columns, this.actions);
      this.upstreams.set(name, upstream);
      this.root.append(upstream.element);
    }
    return this.upstreams.get(name);
  }
}

class Upstream {
  constructor(name, columns, actions) {
    Object.assign(this, { columns, actions, rows: new Map() });
    this.about = el("span", { class: "quiet" });
    const { whole: element, body } = table(`${t("upstream")} ${name}`, columns);
    element.classList.add("cards");
    this.body = body;
    const title = el("h3", {}, el("span", { class: "quiet" }, t("upstream") + " "), el("bdi", {}, name));
    this.element = el("div", { class: "panel upstream" }, el("div", { class: "line" }, title, this.about), element);
  }

  update(members, now) {
    const current = members.filter((m) => !m.isRemoved);
    const active = current.filter((b) => b.state === "active").length;
    const sum = perSecond(current);
    const waiting = current[0]?.waiting ?? 0;
    const about = t("upstream_state", { active, all: current.length, rate: rate(sum) });
    put(this.about, waiting > 0 ? `${about} · ${t("upstream_waiting", { count: count(waiting) })}` : about);
    // Removed ones may come more than once, by the same id.
    const keys = members.map((m, at) => `${m.isRemoved ? `removed ${at}` : "backend"} ${m.backend_id}`);
    const kept = new Set(keys);
    for (const [key, line] of this.rows) {
      if (!kept.has(key)) {
        line.element.remove();
        this.rows.delete(key);
      }
    }
    members.forEach((member, at) => {
      if (!this.rows.has(keys[at])) this.rows.set(keys[at], new Row(member, this.columns, this.actions));
      const line = this.rows.get(keys[at]);
      if (this.body.children[at] !== line.element) this.body.insertBefore(line.element, this.body.children[at] ?? null);
      if (member.isRemoved) line.updateRemoved(member);
      else line.update(member, part(member, sum), now);
    });
  }
}

class Row {
  constructor(backend, columns, actions) {
    const span = (name) => el("span", { class: name });
    this.parts = {
      name: el("bdi", { class: "id" }), address: span("note"), mark: el("span", { class: "mark", "aria-hidden": "true" }),
      state: span("word"), note: span("note"), share: span(""), bar: el("span", { class: "meter", "aria-hidden": "true" }),
      rate: span(""), weight: span(""), ramp: span("note"), flight: span(""), latency: span(""),
      failures: span(""), retries: span("note"), report: span(""), use: span("note"),
    };
    const p = this.parts;
    const fill = el("i", {});
    p.bar.append(fill);
    p.fill = fill;
    this.buttons = backend.isRemoved ? [] : this.#buttons(actions);
    const cells = [
      [p.name, p.address], [el("span", { class: "pill" }, p.mark, p.state), p.note], [p.share, p.bar], p.rate, [p.weight, p.ramp],
      p.flight, p.latency, [p.failures, p.retries], [p.report, p.use], el("span", { class: "buttons" }, ...this.buttons),
    ];
    this.element = row(columns, cells);
    this.pill = this.element.querySelector(".pill");
  }

  #buttons(actions) {
    const act = (name) => () => actions[name](this.backend);
    // One button that stays where it is, so that the keyboard's focus survives its change.
    this.toggle = el("button", { type: "button", onclick: () => (isOut(this.backend) ? act("takeBack") : act("drain"))() });
    this.change = el("button", { type: "button", onclick: act("change") }, t("change"));
    this.remove = el("button", { type: "button", onclick: act("remove") }, t("remove"));
    return [this.toggle, this.change, this.remove];
  }

  update(backend, portion, now) {
    this.backend = backend;
    const p = this.parts;
    const id = backend.backend_id;
    put(p.name, id);
    put(p.address, backend.name && backend.name !== id ? `${backend.name} · ${backend.address}` : backend.address);
    this.#state(backend.state, this.#note(backend));
    put(p.share, percent(portion));
    p.fill.style.width = `${portion ?? 0}%`;
    put(p.rate, rate(backend.requests.per_second_10s));
    put(p.weight, whole(backend.weight));
    put(p.ramp, backend.ramp < 1 && !isOut(backend) ? t("note_ramp", { percent: percent(Math.round(backend.ramp * 100)) }) : "");
    put(p.flight, `${count(backend.in_flight)} / ${backend.max_conn > 0 ? count(backend.max_conn) : "∞"}`);
    const { p50_ms: p50, p99_ms: p99 } = backend.latency.last_10s;
    put(p.latency, p50 == null ? NONE : `${ms(p50)} / ${ms(p99)}`);
    put(p.failures, count(backend.failures));
    put(p.retries, [
      backend.failures_in_a_row > 0 ? t("note_row", { count: whole(backend.failures_in_a_row) }) : "",
      backend.retries > 0 ? `${count(backend.retries)} ${t("retries")}` : "",
    ].filter(Boolean).join(" · "));
    put(p.report, backend.last_report ? t("ago", { time: span((now - backend.last_report) / 1000) }) : t("never"));
    put(p.use, backend.performance ? this.#use(backend.performance) : "");
    const out = isOut(backend);
    put(this.toggle, t(out ? "take_back" : "drain"));
    attribute(this.toggle, "aria-label", t(out ? "take_back_name" : "drain_name", { backend: id }));
    attribute(this.toggle, "data-action", out ? "take-back" : "drain");
    attribute(this.change, "aria-label", t("change_name", { backend: id }));
    attribute(this.remove, "aria-label", t("remove_name", { backend: id }));
  }

  updateRemoved({ backend_id: id, in_flight: left }) {
    put(this.parts.name, id);
    this.#state("removed", t("note_left", { count: count(left) }));
    for (const name of ["share", "rate", "weight", "latency", "failures", "report"]) put(this.parts[name], NONE);
    put(this.parts.flight, count(left));
  }

  #state(state, note) {
    attribute(this.pill, "data-state", state);
    put(this.parts.mark, MARKS[state] ?? "?");
    put(this.parts.state, stateName(state));
    put(this.parts.note, note);
  }

  #note(backend) {
    if (backend.state === "draining") return t("note_left", { count: count(backend.in_flight) });
    if (backend.state === "ejected" && backend.ejected_for_ms) return t("note_ejected", { time: span(backend.ejected_for_ms / 1000) });
    return backend.state === "down" ? t("note_down") : "";
  }

  #use({ utilisation, headroom }) {
    const use = t("report_use", { percent: percent(Math.round(utilisation * 100)) });
    return headroom < 1 ? `${use} · ${t("headroom", { percent: percent(Math.round(headroom * 100)) })}` : use;
  }
}
