// Small charts of the last five minutes. Owns its drawing and the read-out under the pointer; keeps no figures.
import { t, span } from "./say.js";
import { attribute, el, put } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
export const SECONDS = 300;
const HEIGHT = 100;

function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** The next larger round number, for the top of a scale. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * power).find((n) => n >= value * 0.9999);
}

/**
 * `series`: `{name, of(sample) -> number | null, format}` each; the first is drawn solid and filled, the second dashed, so
 * that nobody needs to tell colours apart. `top`: where the
 * scale ends at least; `step`: what is round on it.
 */
export class Chart {
  constructor(titleKey, series, { top = 0, fixed = false, step = 1 } = {}) {
    this.titleKey = titleKey;
    this.series = series;
    this.top = top;
    this.fixed = fixed;
    this.step = step;
    this.samples = [];
    this.pointer = null;
    this.svg = shape("svg", { viewBox: `0 0 ${SECONDS} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.svg.append(shape("path", { class: "grid", d: `M0 ${HEIGHT / 2}H${SECONDS}M0 0.5H${SECONDS}` }));
    this.lines = series.map((_, at) => {
      const area = at === 0 ? shape("path", { class: "area" }) : null;
      const line = shape("path", { class: `curve curve-${at + 1}` });
      if (area) this.svg.append(area);
      this.svg.append(line);
      return { area, line };
    });
    this.cross = shape("path", { class: "cross", visibility: "hidden" });
    this.svg.append(this.cross);
    this.readout = el("span", { class: "readout" });
    this.scale = el("span", { class: "scale" });
    this.keys = series.map((one, at) => el("span", { class: `key key-${at + 1}` }, ""));
    const axis = el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}), this.readout, el("span", {}));
    [this.axisFrom, , this.axisTo] = axis.children;
    const legend = series.length > 1 ? el("div", { class: "legend", "aria-hidden": "true" }, ...this.keys) : null;
    this.element = el("div", { class: "chart" }, el("div", { class: "plot" }, this.svg, this.scale), axis, legend);
    this.svg.addEventListener("pointermove", (event) => this.#point(event));
    this.svg.addEventListener("pointerleave", () => this.#leave());
    this.svg.addEventListener("pointercancel", () => this.#leave());
    this.draw([]);
  }

  #point(event) {
    const box = this.svg.getBoundingClientRect();
    this.pointer = Math.min(SECONDS, Math.max(0, ((event.clientX - box.left) / box.width) * SECONDS));
    this.#read();
  }

  #leave() {
    this.pointer = null;
    this.#read();
  }

  #read() {
    const sample = this.pointer === null ? null : this.#nearest(SECONDS - this.pointer);
    this.cross.setAttribute("visibility", sample ? "visible" : "hidden");
    if (!sample) return put(this.readout, "");
    const ago = this.#ago(sample);
    this.cross.setAttribute("d", `M${SECONDS - ago} 0V${HEIGHT}`);
    const values = this.series.map((one) => one.format(one.of(sample))).join(" · ");
    put(this.readout, `${values} (${ago < 1 ? t("now") : t("ago", { time: span(ago) })})`);
  }

  #ago(sample) {
    return (this.samples[this.samples.length - 1].at - sample.at) / 1000;
  }

  #nearest(ago) {
    let best = null;
    for (const sample of this.samples) {
      if (!best || Math.abs(this.#ago(sample) - ago) < Math.abs(this.#ago(best) - ago)) best = sample;
    }
    return best && Math.abs(this.#ago(best) - ago) < 5 ? best : null;
  }

  /** Draws these samples (`at` in milliseconds); a gap of more than three seconds stays a gap. */
  draw(samples) {
    this.samples = samples;
    const values = this.series.map((one) => samples.map(one.of));
    const highest = values.flat().reduce((max, value) => (value > max ? value : max), 0);
    const top = this.fixed ? this.top : roundUp(Math.max(highest * 1.05, this.top) / this.step) * this.step;
    this.lines.forEach(({ area, line }, at) => {
      const { curve, fill } = this.#paths(values[at], top);
      line.setAttribute("d", curve);
      area?.setAttribute("d", fill);
    });
    put(this.scale, this.series[0].format(top));
    put(this.axisFrom, t("span"));
    put(this.axisTo, t("now"));
    this.keys.forEach((key, at) => put(key, t(this.series[at].name)));
    const first = this.series[0];
    const now = values[0].length ? first.format(values[0][values[0].length - 1]) : t("none");
    attribute(this.svg, "aria-label", t("chart", { name: t(this.titleKey), now, max: first.format(highest) }));
    this.#read();
  }

  #paths(values, top) {
    let curve = "";
    let fill = "";
    let run = [];
    const end = () => {
      if (run.length > 0) {
        const points = run.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`);
        // A lone point is drawn as a dash.
        curve += `M${points.join("L")}${run.length === 1 ? "h.5" : ""}`;
        fill += `M${run[0][0].toFixed(1)} ${HEIGHT}L${points.join("L")}V${HEIGHT}Z`;
      }
      run = [];
    };
    let last = null;
    this.samples.forEach((sample, at) => {
      const value = values[at];
      if (value === null || value === undefined || (last && sample.at - last.at > 3500)) end();
      if (value !== null && value !== undefined) {
        run.push([SECONDS - this.#ago(sample), HEIGHT - Math.min(1, value / top) * (HEIGHT - 1)]);
      }
      last = sample;
    });
    end();
    return { curve, fill };
  }
}
