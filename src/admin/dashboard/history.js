// What the charts show: one sample a second of the last five minutes, kept in memory. Owns rates made from totals.
import { SECONDS } from "./chart.js";

const CLASSES = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/** Rates from totals are over the last ten seconds, as the server's own. */
const WINDOW_MS = 10_000;

export class History {
  samples = [];

  /** Takes a frame of the stream and returns its sample. */
  add(frame) {
    const { server } = frame;
    const { proxy, process, machine } = server;
    const last = this.samples[this.samples.length - 1];
    // Another process answers: its totals begin anew.
    if (last && (proxy.uptime < last.uptime || server.timestamp < last.at)) this.samples = [];
    const then = this.#before(server.timestamp);
    const sample = {
      at: server.timestamp,
      uptime: proxy.uptime,
      rate: proxy.requests.per_second,
      p50: proxy.latency.last_10s.p50_ms,
      p99: proxy.latency.last_10s.p99_ms,
      open: proxy.connections.active,
      parked: proxy.connections.parked,
      cpu: server.cpu_usage,
      ownCpu: machine.cpus > 0 ? process.cpu_usage / machine.cpus : 0,
      memory: process.rss_bytes,
      responses: proxy.responses,
      reasons: proxy.reasons,
      workers: proxy.workers.map((worker) => worker.requests),
    };
    const seconds = then ? (sample.at - then.at) / 1000 : 0;
    const per = (now, before) => (seconds > 0 ? Math.max(0, now - (before ?? 0)) / seconds : null);
    sample.classRates = Object.fromEntries(CLASSES.map((c) => [c, per(sample.responses[c] ?? 0, then?.responses[c])]));
    sample.workerRates = sample.workers.map((now, at) => per(now, then?.workers[at] ?? now));
    this.samples.push(sample);
    while (this.samples[0].at < sample.at - SECONDS * 1000) this.samples.shift();
    return sample;
  }

  /** The youngest sample that is at least the window old, or the oldest there is. */
  #before(at) {
    let found = this.samples[0];
    for (const sample of this.samples) {
      if (sample.at > at - WINDOW_MS + 500) break;
      found = sample;
    }
    return found;
  }

  /** How often a reason came since the oldest sample, and how long ago that was in seconds. */
  recent(code) {
    const first = this.samples[0];
    const last = this.samples[this.samples.length - 1];
    const seconds = Math.round((last.at - first.at) / 1000);
    // Full but for the ticks of two clocks.
    const count = (last.reasons[code] ?? 0) - (first.reasons[code] ?? 0);
    return { count, seconds: seconds > SECONDS - 5 ? SECONDS : seconds };
  }
}

export { CLASSES };
