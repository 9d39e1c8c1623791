// The agent's status, asked for every two seconds while somebody looks, and its recent history:
// samples since the console was opened, kept over a reload of the page.
import * as api from "./api.js";
import { redraw } from "./ui.js";

const kEvery = 2000;        // one session may ask 100 times a minute
const kEveryHidden = 15000;
const kKeepMs = 15 * 60_000;
const kMaxSamples = 500;
const kGapMs = 40_000;      // no line is drawn over a longer silence
const kStoreKey = "signal-agent-history";

export const status = { now: null, fault: null, samples: [] };

let timer = 0;
let running = false;
let lastSaved = 0;

function restore() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(kStoreKey) ?? "[]");
    status.samples = kept.filter((sample) => Date.now() - sample.at < kKeepMs);
  } catch {
    status.samples = [];
  }
}

function save() {
  if (Date.now() - lastSaved < 10_000) return;
  lastSaved = Date.now();
  try {
    sessionStorage.setItem(kStoreKey, JSON.stringify(status.samples));
  } catch {
    // ignored because the history is a comfort, and a full or forbidden storage only forgets it
  }
}

// Counters that began again with the process count from zero.
const grown = (from, to) => (to >= from ? to - from : to);

function take(answer) {
  const { received, stored, sent, acked, buried, pending } = answer.path;
  const sample = { at: Date.now(), received, stored, sent, acked, buried, pending };
  const before = status.samples.at(-1);
  if (before && sample.at - before.at < kGapMs) {
    const seconds = Math.max(0.2, (sample.at - before.at) / 1000);
    sample.rates = {
      received: grown(before.received, received) / seconds,
      stored: grown(before.stored, stored) / seconds,
      sent: grown(before.sent, sent) / seconds,
      // Removing an integration takes its totals along: that is no delivery.
      acked: Math.max(0, acked - before.acked) / seconds,
    };
  }
  status.samples = [...status.samples, sample].filter((s) => sample.at - s.at < kKeepMs).slice(-kMaxSamples);
  save();
}

async function ask() {
  let next = document.hidden ? kEveryHidden : kEvery;
  try {
    const answer = await api.getStatus();
    if (!running) return;
    status.now = answer;
    status.fault = null;
    take(answer);
  } catch (fault) {
    if (!running) return;
    if (fault.status !== 429) status.fault = fault;
    next = Math.max(next, fault.retryAfter * 1000);
  }
  redraw();
  timer = setTimeout(ask, next);
}

export function startStatus() {
  if (running) return;
  running = true;
  restore();
  ask();
}

export function stopStatus() {
  running = false;
  clearTimeout(timer);
  Object.assign(status, { now: null, fault: null, samples: [] });
  sessionStorage.removeItem(kStoreKey);
}

/// After an action: the change is shown at once.
export function askNow() {
  if (!running) return;
  clearTimeout(timer);
  ask();
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) askNow();
});

/// What matters most, without the verdict before it, which the page shows as word and shape; and
/// the rest.
export function findings({ sentence, notes }) {
  return notes.length && sentence.includes(notes[0]) ? notes : [sentence, ...notes];
}

export const integrations = () => status.now?.integrations ?? [];
export const integrationNamed = (id) => integrations().find((one) => one.id === id);
