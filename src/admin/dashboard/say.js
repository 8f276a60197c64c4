// Words and numbers in the reader's language. Owns the choice of language and every format; knows nothing of the page.
import texts from "./texts.js";

const LOCALES = { en: "en", zh: "zh-CN" };

/** A setting that outlives the tab, where the browser allows it. */
export const settings = {
  get(name) {
    try { return localStorage.getItem("speedmimi." + name); } catch { return null; }
  },
  set(name, value) {
    try { localStorage.setItem("speedmimi." + name, value); } catch { /* private windows */ }
  },
};

let language = "en";
let formats = {};

/** The language that was chosen, or the first of the browser's that there is. */
export function wantedLanguage() {
  const chosen = settings.get("language");
  const wanted = [chosen, ...(navigator.languages || [navigator.language])];
  const known = wanted.map((tag) => String(tag || "").toLowerCase().split("-")[0]).find((tag) => texts[tag]);
  return known || "en";
}

export function setLanguage(wanted) {
  language = texts[wanted] ? wanted : "en";
  const locale = LOCALES[language];
  const number = (options) => new Intl.NumberFormat(locale, options);
  formats = {
    whole: number({ maximumFractionDigits: 0 }),
    tenth: number({ maximumFractionDigits: 1, minimumFractionDigits: 1 }),
    hundredth: number({ maximumFractionDigits: 2, minimumFractionDigits: 2 }),
    short: number({ notation: "compact", maximumSignificantDigits: 3 }),
    clock: new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }),
    day: new Intl.DateTimeFormat(locale, { month: "short", day: "numeric" }),
  };
  document.documentElement.lang = locale;
}

export const currentLanguage = () => language;

/** The text under a key, its {places} filled. */
export function t(key, places) {
  const text = texts[language][key] ?? texts.en[key] ?? key;
  return places ? text.replace(/\{(\w+)\}/g, (whole, name) => (name in places ? String(places[name]) : whole)) : text;
}

/** What happened and what to do, of a reason by its code. */
export function reasonWords(code) {
  return texts[language]["reason_" + code] || texts[language].reason_other;
}

export const NONE = "–";

export const whole = (n) => (n == null ? NONE : formats.whole.format(n));

/** A count that may be large: exact below 100,000. */
export const count = (n) => (n == null ? NONE : n < 1e5 ? formats.whole.format(n) : formats.short.format(n));

export function rate(n) {
  if (n == null) return NONE;
  if (n >= 1e5) return formats.short.format(n);
  return n === 0 || n >= 100 ? formats.whole.format(n) : formats.tenth.format(n);
}

export function percent(n) {
  if (n == null || !Number.isFinite(n)) return NONE;
  return (n === 0 || n >= 99.95 ? formats.whole : formats.tenth).format(n) + " %";
}

export function ms(n) {
  if (n == null) return NONE;
  if (n < 10) return formats.hundredth.format(n) + " ms";
  if (n < 100) return formats.tenth.format(n) + " ms";
  if (n < 10_000) return formats.whole.format(n) + " ms";
  return formats.tenth.format(n / 1000) + " s";
}

export function bytes(n) {
  if (n == null) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1000 && at < units.length - 1) {
    n /= 1024;
    at += 1;
  }
  return (at === 0 || n >= 100 ? formats.whole : formats.tenth).format(n) + " " + units[at];
}

/** A length of time from seconds, in its two largest units. */
export function span(seconds) {
  const zh = language === "zh";
  const units = zh ? [[86400, "天"], [3600, "小时"], [60, "分"], [1, "秒"]] : [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  let rest = Math.max(0, Math.floor(seconds));
  const parts = [];
  for (const [size, unit] of units) {
    if (rest >= size || (size === 1 && parts.length === 0)) {
      parts.push(`${Math.floor(rest / size)} ${unit}`);
      rest %= size;
    }
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}

/** A moment: the time of day, with the day where that is not today. */
export function moment(unixMs) {
  const at = new Date(unixMs);
  const time = formats.clock.format(at);
  return at.toDateString() === new Date().toDateString() ? time : `${formats.day.format(at)} ${time}`;
}
