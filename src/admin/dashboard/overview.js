// The tiles at the top: a large figure, a chart and the facts beside it. Owns their elements.
import { Chart } from "./chart.js";
import { CLASSES } from "./history.js";
import { el, put, table, row } from "./dom.js";
import { bytes, count, ms, percent, rate, span, t, whole, NONE } from "./say.js";

/** Names and values, made once and filled each second. */
function facts(keys) {
  const values = {};
  const list = el("dl", { class: "facts" });
  for (const key of keys) {
    values[key] = el("dd", {}, NONE);
    list.append(el("div", {}, el("dt", {}, t(key)), values[key]));
  }
  return { list, set: (key, text) => put(values[key], text) };
}

function tile(name, unit, chart, ...rest) {
  const figure = el("span", { class: "figure", id: `figure-${name}` }, NONE);
  const about = el("span", { class: "quiet" }, unit);
  const id = `tile-${name}`;
  const element = el("section", { class: `tile panel tile-${name}`, "aria-labelledby": id },
    el("h2", { id }, t(name)), el("p", { class: "headline" }, figure, " ", about), chart.element, ...rest);
  return { element, figure, about };
}

export class Overview {
  constructor(root) {
    this.requests = this.#requests();
    this.latency = this.#latency();
    this.answers = this.#answers();
    this.connections = this.#connections();
    this.cpu = this.#cpu();
    this.memory = this.#memory();
    this.all = [this.requests, this.latency, this.answers, this.connections, this.cpu, this.memory];
    root.replaceChildren(...this.all.map((one) => one.element));
  }

  #requests() {
    const chart = new Chart("requests", [{ name: "requests", of: (s) => s.rate, format: rate }], { top: 10 });
    const list = facts(["last_10s_mean", "in_flight", "waiting", "total", "retries", "waited"]);
    return { ...tile("requests", t("per_second"), chart, list.list), chart, facts: list };
  }

  #latency() {
    const series = [{ name: "p50", of: (s) => s.p50, format: ms }, { name: "p99", of: (s) => s.p99, format: ms }];
    const chart = new Chart("latency", series, { top: 1 });
    const columns = ["time_span", "p50", "p90", "p99", "p999", "max"].map((key) => ({ title: t(key) }));
    const { whole: element, body } = table(t("latency"), columns);
    element.classList.add("compact");
    const lines = ["last_10s", "since_start"].map((key) => {
      const line = row(columns, [t(key), ...columns.slice(1).map(() => NONE)]);
      body.append(line);
      return line;
    });
    return { ...tile("latency", t("latency_p50"), chart, element), chart, lines };
  }

  #answers() {
    const series = [
      { name: "class_5xx", of: (s) => s.classRates["5xx"], format: rate },
      { name: "class_4xx", of: (s) => s.classRates["4xx"], format: rate },
    ];
    const chart = new Chart("answers", series, { top: 1 });
    const columns = [t("class"), ...CLASSES].map((title) => ({ title }));
    const { whole: element, body } = table(t("answers"), columns);
    element.classList.add("compact");
    const lines = ["rate_10s", "since_start"].map((key) => {
      const line = row(columns, [t(key), ...CLASSES.map(() => NONE)]);
      body.append(line);
      return line;
    });
    return { ...tile("answers", t("answers_unit"), chart, element), chart, lines };
  }

  #connections() {
    const series = [
      { name: "open_now", of: (s) => s.open, format: count },
      { name: "parked", of: (s) => s.parked, format: count },
    ];
    const chart = new Chart("connections", series, { top: 10 });
    const list = facts(["active", "parked", "tunnels", "event_streams", "accepted", "limit", "reuse"]);
    return { ...tile("connections", t("open_now"), chart, list.list), chart, facts: list };
  }

  #cpu() {
    const series = [
      { name: "process", of: (s) => s.ownCpu, format: percent },
      { name: "machine", of: (s) => s.cpu, format: percent },
    ];
    const chart = new Chart("cpu", series, { top: 100, fixed: true });
    const list = facts(["machine", "load", "cpu_time", "network"]);
    return { ...tile("cpu", "", chart, list.list), chart, facts: list };
  }

  #memory() {
    const chart = new Chart("memory", [{ name: "memory", of: (s) => s.memory, format: bytes }], { top: 1 << 20, step: 1 << 20 });
    const list = facts(["machine", "descriptors", "memory_connections", "memory_exchanges", "memory_buffers", "disk", "log_lines", "threads"]);
    return { ...tile("memory", t("memory_unit"), chart, list.list), chart, facts: list };
  }

  update(frame, sample, samples) {
    const { server } = frame;
    const { proxy, process, machine } = server;
    this.#updateRequests(proxy);
    this.#updateLatency(proxy.latency);
    this.#updateAnswers(proxy, sample);
    this.#updateConnections(proxy);
    put(this.cpu.figure, percent(sample.ownCpu));
    put(this.cpu.about, t(machine.container === "none" ? "cpu_unit" : "cpu_unit_container", { cpus: +machine.cpus.toFixed(2) }));
    this.cpu.facts.set("machine", percent(server.cpu_usage));
    this.cpu.facts.set("load", [server.load_avg_1, server.load_avg_5, server.load_avg_15].map((n) => n.toFixed(2)).join(" · "));
    this.cpu.facts.set("cpu_time", span(process.cpu_seconds));
    this.cpu.facts.set("network", [server.network_in, server.network_out].map((kb) => bytes(kb * 1024) + "/s").join(" · "));
    put(this.memory.figure, bytes(process.rss_bytes));
    const [part, limit] = [percent(server.memory_usage), bytes(machine.memory_limit_bytes)];
    this.memory.facts.set("machine", t("memory_of", { part, limit }));
    const use = proxy.memory;
    this.memory.facts.set("memory_connections", bytes(use.connections + use.parked + use.tunnels));
    this.memory.facts.set("memory_exchanges", bytes(use.exchanges + use.queues));
    this.memory.facts.set("memory_buffers", bytes(use.buffers));
    this.memory.facts.set("descriptors", whole(process.open_descriptors));
    this.memory.facts.set("threads", whole(process.threads));
    this.memory.facts.set("disk", percent(server.disk_usage));
    this.memory.facts.set("log_lines", count(proxy.access_log.dropped));
    for (const one of this.all) one.chart.draw(samples);
  }

  #updateRequests({ requests, queue }) {
    put(this.requests.figure, rate(requests.per_second));
    const { set } = this.requests.facts;
    set("last_10s_mean", rate(requests.per_second_10s));
    set("in_flight", count(requests.in_flight));
    set("waiting", count(queue.waiting));
    set("total", count(requests.total));
    set("retries", count(requests.retries));
    set("waited", count(queue.waited));
  }

  #updateLatency(latency) {
    put(this.latency.figure, ms(latency.last_10s.p50_ms));
    [latency.last_10s, latency.since_start].forEach((times, at) => {
      const cells = this.latency.lines[at].cells;
      ["p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms"].forEach((name, n) => put(cells[n + 1], ms(times[name])));
    });
  }

  #updateAnswers(proxy, sample) {
    const faults = sample.classRates["4xx"] === null ? null : sample.classRates["4xx"] + sample.classRates["5xx"];
    put(this.answers.figure, rate(faults));
    const [now, ever] = this.answers.lines;
    CLASSES.forEach((name, at) => {
      put(now.cells[at + 1], rate(sample.classRates[name]));
      put(ever.cells[at + 1], count(proxy.responses[name] ?? 0));
    });
  }

  #updateConnections({ connections, backend_connections: pool }) {
    put(this.connections.figure, count(connections.active));
    const { set } = this.connections.facts;
    set("active", count(Math.max(0, connections.active - connections.parked - connections.tunnels)));
    set("parked", count(connections.parked));
    set("tunnels", count(connections.tunnels));
    set("event_streams", count(connections.event_streams));
    set("accepted", count(connections.accepted));
    set("limit", count(connections.max));
    const used = pool.reused + pool.opened;
    set("reuse", used > 0 ? percent((pool.reused / used) * 100) : NONE);
  }
}
