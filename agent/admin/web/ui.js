// What every page uses: redrawing, notices, the dialog, state words.
import { html, render, nothing } from "./vendor/lit-html.js";
import * as icons from "./icons.js";
import { count, prose } from "./format.js";

// ---- one redraw for everything, at most once a frame

let draw = () => {};
let queued = false;
export const onDraw = (f) => (draw = f);

export function redraw() {
  if (queued) return;
  queued = true;
  const run = () => {
    queued = false;
    draw();
    drawDialog();
  };
  // A hidden page gets no frames; its numbers still have to move.
  document.hidden ? setTimeout(run, 0) : requestAnimationFrame(run);
}

// ---- notices: the one polite live region besides the summary

const noticeHost = document.getElementById("notices");
let notices = [];

export function notice(text, tone = "ok") {
  const entry = { text, tone };
  notices = [...notices.slice(-2), entry];
  drawNotices();
  setTimeout(() => {
    notices = notices.filter((other) => other !== entry);
    drawNotices();
  }, tone === "ok" ? 6000 : 12000);
}

const drawNotices = () =>
  render(notices.map(({ text, tone }) => html`<p class="notice" data-tone=${tone}>${icons[tone]}${text}</p>`), noticeHost);

export const complain = (fault) => notice(fault.message, "trouble");

// ---- the dialog: one at a time, native, so that focus is kept inside and given back

const dialogHost = document.getElementById("dialog");
let dialog = null;

export function openDialog({ title, view, wide = false }) {
  dialog = { title, view };
  dialogHost.className = wide ? "wide" : "";
  drawDialog();
  if (!dialogHost.open) dialogHost.showModal();
  dialogHost.scrollTop = 0;
}
export const closeDialog = () => dialogHost.close();

dialogHost.addEventListener("close", () => {
  if (dialogHost.open) return;  // the event comes late, and another one is open already
  dialog = null;
  render(nothing, dialogHost);
  redraw();
  if (document.activeElement === document.body) focusHeading();
});

function drawDialog() {
  if (!dialog) return;
  render(
    html`<header class="dialog-head">
        <h2 id="dialog-title" tabindex="-1">${dialog.title}</h2>
        <button type="button" class="plain-icon" aria-label="Close" @click=${closeDialog}>${icons.close}</button>
      </header>
      ${dialog.view()}`,
    dialogHost,
  );
}

export const focusHeading = () => document.querySelector("main h1")?.focus({ preventScroll: true });

/// Asks for the number of events that will be lost, typed, before it runs `run(count)`.
/// `run` may throw an ApiError that names another count: the question is asked again with it.
export function confirmCount({ title, explain, total, verb, run }) {
  let fault = "";
  let busy = false;
  const submit = async (event) => {
    event.preventDefault();
    const field = event.target.elements.count;
    if (total > 0 && Number(field.value.replace(/[\s,._]/g, "")) !== total) {
      fault = `Type ${total} to confirm.`;
      redraw();
      field.focus();
      return;
    }
    busy = true;
    fault = "";
    redraw();
    try {
      await run(total);
      closeDialog();
    } catch (error) {
      busy = false;
      if (error.confirm !== undefined && error.confirm !== total) {
        total = error.confirm;
        fault = `In the meantime it became ${count(total)}. Type the new number.`;
      } else {
        fault = error.message;
      }
      redraw();
    }
  };
  openDialog({
    title,
    view: () => html`<form class="stack" novalidate @submit=${submit}>
      <div class="stack-s">${explain(total)}</div>
      ${total > 0
        ? html`<div class="field">
            <label for="confirm-count">Type <strong>${total}</strong> to confirm</label>
            <input id="confirm-count" name="count" inputmode="numeric" autocomplete="off" autofocus
              aria-invalid=${fault ? "true" : "false"} aria-describedby="confirm-fault">
          </div>`
        : nothing}
      <p id="confirm-fault" class="fault" aria-live="polite">${fault}</p>
      <div class="actions">
        <button type="submit" class="danger" ?disabled=${busy}>${verb}</button>
        <button type="button" @click=${closeDialog}>Cancel</button>
      </div>
    </form>`,
  });
}

// ---- words with a shape and a colour; the word alone is enough

export const badge = (tone, word) => html`<span class="badge" data-tone=${tone}>${icons[tone] ?? icons.quiet}${word}</span>`;

const states = {
  running: ["ok", "Delivering"],
  starting: ["working", "Starting"],
  waiting: ["attention", "Waiting for the cluster"],
  halted: ["trouble", "Halted"],
  probing: ["attention", "Probing with one event"],
  releasing: ["working", "Releasing parked events"],
  paused: ["quiet", "Paused"],
  stopped: ["quiet", "Stopped"],
  disabled: ["quiet", "Disabled"],
  orphaned: ["attention", "Orphaned"],
  spool_unavailable: ["trouble", "Spool unavailable"],
};
export const stateBadge = (state) => badge(...(states[state] ?? ["quiet", state]));

const outcomes = {
  stored: ["stored", "stored"],
  pending: ["working", "pending"],
  in_flight: ["working", "in flight"],
  delivered: ["ok", "delivered"],
  failed: ["attention", "failed"],
  filtered: ["filtered", "filtered"],
  buried: ["trouble", "buried"],
  discarded: ["quiet", "discarded"],
  settled: ["ok", "settled"],
};
export const outcomeBadge = (status) => badge(...(outcomes[status] ?? ["quiet", status]));

const stageNames = { dns: "DNS", tcp: "TCP", tls: "TLS", sasl: "SASL" };
const stageTones = { passed: "ok", warning: "attention", failed: "trouble", skipped: "quiet" };

/// What a connection test found, stage by stage.
export const checkResult = (result) => html`<section class="check" aria-labelledby="check-title">
  <h3 id="check-title" tabindex="-1">${result.passed
    ? "The connection works"
    : "The connection does not work yet"}</h3>
  <ol class="stages">
    ${result.stages.map((stage) => html`<li>
      <span class="stage-name">${stageNames[stage.stage] ?? stage.stage.charAt(0).toUpperCase() + stage.stage.slice(1)}</span>
      ${badge(stageTones[stage.state], stage.state)}
      <span class="stage-words"><span>${stage.detail}</span>
        ${stage.remedy ? html`<span class="stage-remedy">${prose(stage.remedy)}</span>` : nothing}</span>
    </li>`)}
  </ol>
</section>`;

/// What is wrong, why it may be, what to do.
export const failureCard = (failure, since) => html`<div class="failure" data-tone=${failure.class === "retry" ? "attention" : "trouble"}>
  <p class="failure-problem">${failure.class === "retry" ? icons.attention : icons.trouble}<span><strong>${failure.problem}</strong> <code>${failure.code}</code>${since}</span></p>
  ${failure.seen ? html`<p class="seen"><span class="label">Seen</span> ${failure.seen}</p>` : nothing}
  ${failure.causes.length
    ? html`<div><p class="label">Likely causes</p><ul>${failure.causes.map((cause) => html`<li>${prose(cause)}</li>`)}</ul></div>`
    : nothing}
  ${failure.remedy ? html`<div><p class="label">What to do</p><p>${prose(failure.remedy)}</p></div>` : nothing}
</div>`;

export const empty = (title, body, action = nothing) => html`<div class="empty">
  <h2>${title}</h2>
  <p>${body}</p>
  ${action}
</div>`;
