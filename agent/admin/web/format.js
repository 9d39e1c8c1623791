// Numbers, sizes and times in words. Pure, apart from the clock in `ago`.
import { html, nothing } from "./vendor/lit-html.js";

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (n) => (n == null ? "–" : whole.format(n));
/// For large figures: exact below ten million, then 12.3M.
export const figure = (n) => (n == null ? "–" : Math.abs(n) < 1e7 ? whole.format(n) : short.format(n));
export const rate = (n) => (n == null ? "–" : `${n < 10 ? one.format(n) : whole.format(Math.round(n))}/s`);
export const events = (n) => `${count(n)} ${n === 1 ? "event" : "events"}`;
export const letters = (n) => `${count(n)} ${n === 1 ? "dead letter" : "dead letters"}`;

export function bytes(n) {
  if (n == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${unit === 0 || n >= 100 ? Math.round(n) : one.format(n)} ${units[unit]}`;
}

export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${one.format(seconds)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = seconds / 60;
  if (minutes < 90) return `${Math.round(minutes)} min`;
  const hours = minutes / 60;
  return hours < 48 ? `${Math.round(hours)} h` : `${Math.round(hours / 24)} days`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });

/// The clock's time, with the day when it is not today.
export function time(at) {
  if (!at) return "–";
  const date = new Date(at);
  const today = date.toDateString() === new Date().toDateString();
  const words = today ? clock.format(date) : `${day.format(date)} ${clock.format(date)}`;
  return html`<time datetime=${at} title=${full.format(date)}>${words}</time>`;
}

export function ago(at, never = "never") {
  if (!at) return never;
  const passed = Math.max(0, Date.now() - Date.parse(at));
  const words = passed < 2000 ? "just now" : `${duration(passed)} ago`;
  return html`<time datetime=${at} title=${full.format(new Date(at))}>${words}</time>`;
}

/// Text of ours or of a broker with `commands` in backticks shown as code.
export function prose(text) {
  return text.split("`").map((part, i) => (i % 2 ? html`<code>${part}</code>` : part));
}

/// "Headline: the rest." or "Headline. The rest." A quoted name at the start is never cut.
export function splitSentence(sentence) {
  const name = /^"[^"]*"/.exec(sentence)?.[0] ?? "";
  const rest = sentence.slice(name.length);
  const cut = /[:.]\s/.exec(rest);
  if (!cut) return [sentence.replace(/\.$/, ""), ""];
  const tail = rest.slice(cut.index + 2);
  return [name + rest.slice(0, cut.index), tail.charAt(0).toUpperCase() + tail.slice(1)];
}

export const maybe = (condition, template) => (condition ? template() : nothing);
