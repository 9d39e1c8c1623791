// Live Events: one row per event and integration, newest first, fed by one stream. What happens to
// an event later changes its row. Bounded; says what it leaves out.
//
// The agent remembers events only while somebody watches, so the stream is open from sign-in on,
// asking for little until this page is: what happened a minute ago on another page is then here.
import { html, nothing } from "../vendor/lit-html.js";
import { repeat } from "../vendor/directives/repeat.js";
import * as api from "../api.js";
import * as icons from "../icons.js";
import { closeDialog, empty, openDialog, outcomeBadge, redraw } from "../ui.js";
import { askNow, integrations, status } from "../status.js";
import { count, duration, events as eventsInWords, time } from "../format.js";

const kRows = 200;
const kStatuses = ["stored", "delivered", "failed", "filtered", "buried"];
const kDrawEvery = 250;

const page = {
  source: null,
  state: "connecting", // connecting, open, lost
  lastId: 0,
  rows: [],            // newest first
  known: new Map(),    // "seq/integration" -> row
  skipped: 0,
  paused: false,
  held: [],            // arrived while paused
  heldSkipped: 0,
  statuses: new Set(),
  integration: "",
  open: false,         // this page is shown
  watching: false,     // somebody is signed in
  drawTimer: 0,
  retryTimer: 0,
};

function drawSoon() {
  page.drawTimer ||= setTimeout(() => {
    page.drawTimer = 0;
    redraw();
  }, kDrawEvery);
}

const keyOf = (seq, integration) => `${seq}/${integration ?? ""}`;

/// `stored` opens a row without integration; the first outcome takes that row over.
function apply(event) {
  const key = keyOf(event.seq, event.integration);
  let row = page.known.get(key);
  if (!row && event.integration) {
    const opened = page.known.get(keyOf(event.seq));
    if (opened) {
      page.known.delete(opened.key);
      row = opened;
    }
  }
  if (row) {
    page.known.delete(row.key);
  } else {
    if (event.status === "stored" && page.rows.some((other) => other.seq === event.seq)) return;
    row = { uid: key };
    page.rows.unshift(row);
  }
  Object.assign(row, event, { key, name: event.name ?? row.name, type: event.type || row.type });
  page.known.set(key, row);
  for (const old of page.rows.splice(kRows)) page.known.delete(old.key);
}

function take(event) {
  page.lastId = event.id;
  if (!page.paused) {
    apply(event);
  } else {
    page.held.push(event);
    if (page.held.length > kRows * 2) {
      page.held.shift();
      page.heldSkipped += 1;
    }
  }
  drawSoon();
}

function forget() {
  Object.assign(page, { rows: [], known: new Map(), skipped: 0, held: [], heldSkipped: 0, lastId: 0 });
}

function connect() {
  disconnect();
  if (!page.watching || document.hidden) return;  // browsers have six connections for one host
  page.state = "connecting";
  const values = page.open ? { integration: page.integration, status: [...page.statuses].join(",") } : { status: "failed" };
  if (page.open && page.lastId) values.last_event_id = page.lastId;
  else if (page.open) values.recent = 100;
  const source = new EventSource(api.liveUrl(values));
  page.source = source;
  source.onopen = () => {
    page.state = "open";
    drawSoon();
  };
  source.onmessage = ({ data }) => page.open && take(JSON.parse(data));
  source.addEventListener("skipped", ({ data }) => {
    if (!page.open) return;
    page.skipped += JSON.parse(data).skipped;
    drawSoon();
  });
  source.onerror = () => {
    page.state = "lost";
    drawSoon();
    if (source.readyState !== EventSource.CLOSED || page.source !== source) return;
    // Refused rather than broken: the session may be gone, which the next status answer shows.
    askNow();
    page.retryTimer = setTimeout(() => page.source === source && connect(), 3000);
  };
}

function disconnect() {
  clearTimeout(page.retryTimer);
  page.source?.close();
  page.source = null;
}

function restart() {
  forget();
  connect();
  redraw();
}

function togglePause() {
  page.paused = !page.paused;
  if (!page.paused) {
    page.held.forEach(apply);
    page.skipped += page.heldSkipped;
    page.held = [];
    page.heldSkipped = 0;
  }
  redraw();
}

function toggleStatus(name) {
  page.statuses.has(name) ? page.statuses.delete(name) : page.statuses.add(name);
  restart();
}

document.addEventListener("visibilitychange", connect);

export function watch(on) {
  page.watching = on;
  connect();
}

// ---- one event's receipt

const receiptWords = {
  pending: "Stored on disk; waits for its turn.",
  in_flight: "Sent; the broker has not answered yet.",
  delivered: "Stored by Kafka.",
  filtered: "Not meant for this integration (consent, or a test event of another).",
  buried: "In the dead letters.",
  discarded: "Given up by an operator or a configured limit.",
  settled: "Done with, longer ago than the agent remembers the place.",
};

export async function openReceipt(seq) {
  let answer = null;
  let fault = null;
  const load = async () => {
    try {
      answer = await api.receipt(seq);
      fault = null;
    } catch (error) {
      fault = error;
    }
    redraw();
  };
  openDialog({
    title: `Event ${seq}`,
    view: () => html`<div class="stack">
      ${fault ? html`<p class="fault">${icons.trouble}${fault.status === 404 ? "This number was never given to an event." : fault.message}</p>` : nothing}
      ${!answer && !fault ? html`<p class="loading">Asking the agent…</p>` : nothing}
      ${answer && !answer.integrations.length ? html`<p>No integration is concerned with this event.</p>` : nothing}
      ${answer?.integrations.map((one) => html`<article class="receipt">
        <h3>${one.name}</h3>
        <p>${outcomeBadge(one.status)} ${one.partition == null ? nothing : html`<span>partition ${one.partition}, offset ${count(one.offset)}</span>`}
          ${one.code ? html`<code>${one.code}</code>` : nothing}</p>
        <p class="help">${receiptWords[one.status] ?? ""}
          ${one.status === "buried" ? html`<a href="#/dead-letters/${encodeURIComponent(one.integration)}/${seq}" @click=${closeDialog}>Inspect it</a>` : nothing}</p>
      </article>`)}
      <div class="actions"><button type="button" @click=${load}>Ask again</button></div>
    </div>`,
  });
  await load();
}

function lookUp(event) {
  event.preventDefault();
  const seq = event.target.elements.seq.value.replace(/[\s,._]/g, "");
  if (/^\d+$/.test(seq)) openReceipt(seq);
}

// ---- the view

const place = (row) => {
  if (row.status === "delivered") return html`partition ${row.partition}, offset ${count(row.offset)}`;
  return row.code ? html`<code>${row.code}</code>` : "";
};

const line = (row) => html`<tr role="row" data-status=${row.status}>
  <td role="cell" class="when">${time(row.at)}</td>
  <td role="cell" class="seq"><button type="button" class="link" aria-label="Receipt of event ${row.seq}" @click=${() => openReceipt(row.seq)}>${row.seq}</button></td>
  <td role="cell" class="event"><span class="kind">${row.type}</span> <bdi>${row.name ?? ""}</bdi></td>
  <td role="cell" class="whose">${row.integration_name ?? ""}</td>
  <td role="cell" class="end">${outcomeBadge(row.status)}</td>
  <td role="cell" class="place">${place(row)}</td>
  <td role="cell" class="number">${row.latency_ms == null ? "" : duration(row.latency_ms)}</td>
</tr>`;

function stateLine() {
  if (page.paused) {
    const held = page.held.length + page.heldSkipped;
    return html`${icons.pause}<span>Paused. ${held ? `${eventsInWords(held)} arrived since.` : "Nothing new since."}</span>`;
  }
  if (page.state === "open") return html`${icons.live}<span>Live. Newest first, the last ${kRows} rows.</span>`;
  return page.state === "lost"
    ? html`${icons.attention}<span>The stream is interrupted; it connects again by itself.</span>`
    : html`${icons.working}<span>Connecting…</span>`;
}

function nothingYet() {
  if (page.statuses.size || page.integration) return empty("Nothing fits the filters yet", "Matching events appear here as they happen.");
  if (status.now && !integrations().length) {
    return empty("No integration is installed", "Events are kept, but nothing is delivered until there is one.",
      html`<a class="button primary" href="#/integrations/library">Open the Integration Library</a>`);
  }
  return empty("Waiting for events", "Send one from your application, or a test event from an integration's card. What happened while nobody watched is not listed here; find it by its sequence number.",
    html`<a class="button" href="#/integrations">Go to the integrations</a>`);
}

export const live = {
  title: () => "Live Events",
  enter(_, values) {
    const wanted = values.get("integration") ?? "";
    if (wanted !== page.integration) {
      page.integration = wanted;
      forget();
    }
    page.open = true;
    connect();
  },
  leave() {
    page.open = false;
    page.paused = false;
    forget();
    connect();
  },
  view() {
    return html`<header class="page-head">
        <h1 tabindex="-1">Live Events</h1>
        <form class="look-up" @submit=${lookUp}>
          <label for="seq" class="unseen">Sequence number</label>
          <input id="seq" name="seq" inputmode="numeric" autocomplete="off" placeholder="Sequence number">
          <button type="submit">Find event</button>
        </form>
      </header>
      <div class="toolbar">
        <button type="button" class="toggle" aria-pressed=${page.paused ? "true" : "false"} @click=${togglePause}>
          ${page.paused ? icons.play : icons.pause}Pause</button>
        <div class="chips" role="group" aria-labelledby="only">
          <span id="only" class="soft">Show only</span>
          ${kStatuses.map((name) => html`<button type="button" class="chip" aria-pressed=${page.statuses.has(name) ? "true" : "false"}
            @click=${() => toggleStatus(name)}>${name}</button>`)}
        </div>
        <label class="inline">Integration
          <select @change=${(event) => {
            page.integration = event.target.value;
            restart();
          }}>
            <option value="" ?selected=${page.integration === ""}>All</option>
            ${integrations().map((one) => html`<option value=${one.id} ?selected=${one.id === page.integration}>${one.name}</option>`)}
          </select>
        </label>
      </div>
      <p class="stream-state">${stateLine()}
        ${page.skipped ? html`<span class="soft">${eventsInWords(page.skipped)} not shown: more happened than can be read.</span>` : nothing}</p>
      ${page.rows.length
        ? html`<div class="scroll rows live-table" tabindex="0" role="region" aria-label="Live events">
            <table role="table">
              <caption class="unseen">Events with their delivery status, newest first</caption>
              <thead role="rowgroup"><tr role="row"><th scope="col" role="columnheader">Time</th><th scope="col" role="columnheader">Sequence</th><th scope="col" role="columnheader">Event</th>
                <th scope="col" role="columnheader">Integration</th><th scope="col" role="columnheader">Status</th><th scope="col" role="columnheader">Result</th>
                <th scope="col" role="columnheader" class="number">Latency</th></tr></thead>
              <tbody role="rowgroup">${repeat(page.rows, (row) => row.uid, line)}</tbody>
            </table>
          </div>`
        : nothingYet()}`;
  },
};
