// Dead letters: what Kafka would not take, by cause; inspect, replay, discard.
import { html, nothing } from "../vendor/lit-html.js";
import * as api from "../api.js";
import * as icons from "../icons.js";
import { askNow, integrations, status } from "../status.js";
import { closeDialog, complain, confirmCount, empty, notice, openDialog, redraw } from "../ui.js";
import { ago, bytes, count, letters, prose, time } from "../format.js";

const kPage = 25;
const kShownBytes = 64 * 1024;

const page = {
  id: "",          // integration
  seq: "",         // the letter inspected
  reason: "",      // filter
  list: null,      // { data, next_cursor, has_more }
  groups: null,
  total: null,
  fault: null,
  cursors: [""],   // of the pages up to the one shown
  firsts: [1],     // the number of the first letter of each; pages of large letters are shorter
  chosen: new Set(),
  letter: null,
  raw: false,
  whole: false,
  load: 0,         // answers of an older load are dropped
};

const reasons = {
  size: "Too large or refused",
  authentication: "Authentication",
  authorization: "No permission to write",
  topic_missing: "Topic missing",
  expired: "Too old",
};
const reasonName = (reason) => reasons[reason] ?? reason;
const healing = { authentication: true, authorization: true };

async function loadList() {
  const mine = ++page.load;
  try {
    const answer = await api.deadLetters(page.id, { reason: page.reason, cursor: page.cursors.at(-1), limit: kPage });
    if (mine !== page.load) return;
    page.list = answer;
    page.fault = null;
    if (answer.groups) page.groups = answer.groups;
    if (answer.total != null) page.total = answer.total;
  } catch (fault) {
    if (mine !== page.load) return;
    page.fault = fault;
  }
  redraw();
}

async function loadLetter() {
  const mine = ++page.load;
  try {
    const answer = await api.deadLetter(page.id, page.seq);
    if (mine !== page.load) return;
    page.letter = answer;
    page.fault = null;
  } catch (fault) {
    if (mine !== page.load) return;
    page.fault = fault;
  }
  redraw();
}

function begin() {
  Object.assign(page, { list: null, groups: null, total: null, cursors: [""], firsts: [1], chosen: new Set(), fault: null });
  loadList();
}

function filter(reason) {
  Object.assign(page, { reason, cursors: [""], firsts: [1], chosen: new Set() });
  loadList();
}

function turn(forward) {
  if (forward) {
    page.firsts.push(page.firsts.at(-1) + page.list.data.length);
    page.cursors.push(page.list.next_cursor);
  } else {
    page.firsts.pop();
    page.cursors.pop();
  }
  page.chosen = new Set();
  loadList();
}

// ---- replay and discard

function replay(selection, total, after = begin) {
  openDialog({
    title: `Replay ${letters(total)}?`,
    view: () => html`<div class="stack">
      <p>${total === 1 ? "It is" : "They are"} sent again, in order, and leave${total === 1 ? "s" : ""} the dead letters when Kafka has stored ${total === 1 ? "it" : "them"}.
        What is refused again comes back here.</p>
      <div class="actions">
        <button type="button" class="primary" autofocus @click=${async () => {
          closeDialog();
          try {
            const answer = await api.replay(page.id, selection);
            notice(`${letters(answer.count)} will be sent again.`);
          } catch (fault) {
            complain(fault);
          }
          askNow();
          after();
        }}>Replay</button>
        <button type="button" @click=${closeDialog}>Cancel</button>
      </div>
    </div>`,
  });
}

function discard(selection, total, after = begin) {
  confirmCount({
    title: `Discard ${letters(total)}?`,
    total,
    verb: "Discard for good",
    explain: (now) => html`<p>The ${now === 1 ? "event is" : "events are"} deleted, counted as discarded and noted in the audit log. This cannot be undone.</p>`,
    run: async (now) => {
      const answer = await api.discard(page.id, { ...selection, confirm: now });
      notice(`${letters(answer.count)} discarded.`);
      askNow();
      after();
    },
  });
}

// ---- groups by cause

function byReason() {
  const all = new Map();
  for (const { reason, code, count: n } of page.groups ?? []) {
    const group = all.get(reason) ?? { reason, codes: [], total: 0 };
    group.codes.push({ code, n });
    group.total += n;
    all.set(reason, group);
  }
  return [...all.values()].sort((a, b) => b.total - a.total);
}

const group = ({ reason, codes, total }) => html`<article class="card group" aria-label="${reasonName(reason)}">
  <header class="card-head">
    <h2>${reasonName(reason)}</h2>
    <span class="group-count">${count(total)}</span>
  </header>
  <p class="codes">${codes.map(({ code, n }) => html`<span><code>${code}</code>${codes.length > 1 ? ` ${count(n)}` : ""}</span>`)}</p>
  <p class="soft">${healing[reason]
    ? "Released by themselves, in order, when the cause is gone."
    : "They wait for you: cure the cause, then replay."}</p>
  <div class="actions">
    <button type="button" aria-pressed=${page.reason === reason ? "true" : "false"} class="toggle" @click=${() => filter(page.reason === reason ? "" : reason)}>
      Show only these</button>
    <button type="button" aria-label="Replay all: ${reasonName(reason)}" @click=${() => replay({ reason }, total)}>Replay all</button>
    <button type="button" class="quiet-danger" aria-label="Discard all: ${reasonName(reason)}" @click=${() => discard({ reason }, total)}>Discard all</button>
  </div>
</article>`;

// ---- the list

const hrefOf = (letter) => `#/dead-letters/${encodeURIComponent(page.id)}/${letter.seq}`;

function choose(seq, on) {
  on ? page.chosen.add(seq) : page.chosen.delete(seq);
  redraw();
}

const line = (letter) => html`<tr role="row">
  <td role="cell" class="pick"><input type="checkbox" aria-label="Choose event ${letter.seq}" .checked=${page.chosen.has(letter.seq)}
    @change=${(event) => choose(letter.seq, event.target.checked)}></td>
  <th scope="row" role="rowheader" class="seq"><a href=${hrefOf(letter)} aria-label="Inspect event ${letter.seq}">${letter.seq}</a></th>
  <td role="cell" class="event"><span class="kind">${letter.type}</span> <bdi>${letter.name ?? ""}</bdi></td>
  <td role="cell" class="cause">${letter.problem}<span class="under"><code>${letter.code}</code></span></td>
  <td role="cell" class="number" data-label="Size">${bytes(letter.size_bytes)}</td>
  <td role="cell" class="number" data-label="Attempts">${count(letter.attempts)}</td>
  <td role="cell" data-label="Last failure">${ago(letter.last_failure_at)}${letter.replaying ? html`<span class="under">being replayed</span>` : nothing}</td>
</tr>`;

function table() {
  const { data, has_more: more } = page.list;
  const everyone = data.length > 0 && data.every((letter) => page.chosen.has(letter.seq));
  const chosen = [...page.chosen].sort((a, b) => a - b);
  const first = page.firsts.at(-1);
  return html`<section aria-labelledby="list-title">
    <div class="toolbar">
      <h2 id="list-title">${page.reason ? reasonName(page.reason) : "All causes"} <span class="soft">${count(page.total)}</span></h2>
      ${page.reason ? html`<button type="button" class="quiet" @click=${() => filter("")}>Show all causes</button>` : nothing}
      <div class="actions push">
        <button type="button" ?disabled=${!chosen.length} @click=${() => replay({ seq: chosen }, chosen.length)}>Replay chosen${chosen.length ? ` (${chosen.length})` : ""}</button>
        <button type="button" class="quiet-danger" ?disabled=${!chosen.length} @click=${() => discard({ seq: chosen }, chosen.length)}>Discard chosen</button>
      </div>
    </div>
    <div class="scroll rows" tabindex="0" role="region" aria-label="Dead letters">
      <table role="table">
        <caption class="unseen">Dead letters, oldest first</caption>
        <thead role="rowgroup"><tr role="row">
          <th scope="col" role="columnheader" class="pick"><input type="checkbox" aria-label="Choose all on this page" .checked=${everyone}
            @change=${(event) => data.forEach((letter) => choose(letter.seq, event.target.checked))}></th>
          <th scope="col" role="columnheader">Sequence</th><th scope="col" role="columnheader">Event</th><th scope="col" role="columnheader">Cause</th>
          <th scope="col" role="columnheader" class="number">Size</th><th scope="col" role="columnheader" class="number">Attempts</th><th scope="col" role="columnheader">Last failure</th>
        </tr></thead>
        <tbody role="rowgroup">${data.map(line)}</tbody>
      </table>
    </div>
    <nav class="pager" aria-label="Pages of dead letters">
      <button type="button" ?disabled=${page.cursors.length < 2} @click=${() => turn(false)}>Previous</button>
      <span>${data.length ? `${count(first)} to ${count(first + data.length - 1)}` : "None"}</span>
      <button type="button" ?disabled=${!more} @click=${() => turn(true)}>Next</button>
    </nav>
  </section>`;
}

// ---- one letter

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function copy(text) {
  navigator.clipboard?.writeText(text).then(() => notice("Copied."), () => notice("The browser did not allow copying.", "attention"));
}

function download(letter) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([letter.event], { type: "application/json" }));
  link.download = `event-${letter.seq}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function contents(letter) {
  const text = page.raw ? letter.event : pretty(letter.event);
  const cut = !page.whole && text.length > kShownBytes;
  return html`<section aria-labelledby="bytes-title">
    <div class="toolbar">
      <h2 id="bytes-title">The event <span class="soft">${bytes(letter.size_bytes)}</span></h2>
      <div class="chips push" role="group" aria-label="Show the event">
        ${[[false, "Formatted"], [true, "As it came"]].map(([raw, label]) => html`<button type="button" class="chip" aria-pressed=${page.raw === raw ? "true" : "false"}
          @click=${() => {
            page.raw = raw;
            redraw();
          }}>${label}</button>`)}
      </div>
      <button type="button" @click=${() => copy(letter.event)}>Copy</button>
      <button type="button" @click=${() => download(letter)}>Download</button>
    </div>
    <pre class="bytes" tabindex="0" role="region" aria-label="Contents of the event" dir="ltr">${cut ? text.slice(0, kShownBytes) : text}</pre>
    ${cut
      ? html`<p class="soft">The first ${bytes(kShownBytes)} are shown.
          <button type="button" class="link" @click=${() => {
            page.whole = true;
            redraw();
          }}>Show all of it</button></p>`
      : nothing}
  </section>`;
}

function why(letter) {
  const tries = letter.attempts === 1 ? "once" : `${count(letter.attempts)} times`;
  return `Kafka did not take this event, tried ${tries}: ${letter.problem}.`;
}

function letterView() {
  const letter = page.letter;
  const name = integrations().find((one) => one.id === page.id)?.name ?? page.id;
  const backTo = `#/dead-letters/${encodeURIComponent(page.id)}`;
  const home = () => (location.hash = backTo);
  return html`<p class="crumb"><a href=${backTo}>${icons.back}Dead letters of ${name}</a></p>
    <header class="page-head"><h1 tabindex="-1">Event ${page.seq}</h1></header>
    ${page.fault
      ? page.fault.status === 404
        ? empty("This event is no dead letter any more", "It was replayed or discarded, or filtered for want of consent.", html`<a class="button" href=${backTo}>Back to the dead letters</a>`)
        : html`<p class="fault">${icons.trouble}${page.fault.message}</p>`
      : !letter
        ? html`<p class="loading">Asking the agent…</p>`
        : html`
          <section class="failure" data-tone="trouble" aria-label="Why it is here">
            <p class="failure-problem">${icons.trouble}<span><strong>${why(letter)}</strong> <code>${letter.code}</code></span></p>
            ${letter.seen ? html`<p class="seen"><span class="label">Seen</span> ${letter.seen}</p>` : nothing}
            ${letter.causes.length ? html`<div><p class="label">Likely causes</p><ul>${letter.causes.map((cause) => html`<li>${prose(cause)}</li>`)}</ul></div>` : nothing}
            ${letter.remedy ? html`<div><p class="label">What to do</p><p>${prose(letter.remedy)}</p></div>` : nothing}
            ${letter.self_healing ? html`<p>It is released by itself, in order, when the cause is gone.</p>` : nothing}
            ${letter.replaying ? html`<p><strong>It is being replayed now.</strong></p>` : nothing}
            <div class="actions">
              <button type="button" class="primary" ?disabled=${letter.replaying} @click=${() => replay({ seq: [letter.seq] }, 1, home)}>Replay</button>
              <button type="button" class="quiet-danger" ?disabled=${letter.replaying} @click=${() => discard({ seq: [letter.seq] }, 1, home)}>Discard</button>
            </div>
          </section>
          <dl class="facts">
            <div><dt>Type</dt><dd>${letter.type}</dd></div>
            <div><dt>Name</dt><dd><bdi>${letter.name ?? "–"}</bdi></dd></div>
            <div><dt>Key</dt><dd><bdi>${letter.key ?? "none"}</bdi></dd></div>
            <div><dt>Accepted</dt><dd>${time(letter.accepted_at)}</dd></div>
            <div><dt>First failure</dt><dd>${time(letter.first_failure_at)}</dd></div>
            <div><dt>Last failure</dt><dd>${time(letter.last_failure_at)}</dd></div>
          </dl>
          ${contents(letter)}`}`;
}

// ---- the view

function chooser() {
  const all = integrations();
  if (all.length < 2) return nothing;
  return html`<nav class="tabs" aria-label="Integration">
    ${all.map((one) => html`<a href="#/dead-letters/${encodeURIComponent(one.id)}" aria-current=${one.id === page.id ? "page" : nothing}>${one.name}
      <span class="soft">${count(one.books?.buried ?? 0)}</span></a>`)}
  </nav>`;
}

function listView() {
  if (page.fault) return html`<p class="fault">${icons.trouble}${page.fault.message}</p><div class="actions"><button type="button" @click=${begin}>Try again</button></div>`;
  if (!page.list) return html`<p class="loading">Asking the agent…</p>`;
  if (!page.list.data.length && page.cursors.length < 2 && !page.groups?.length) {
    return empty("No dead letters", "Kafka took every event it was sent. What it refuses for good will be kept here, with the reason.");
  }
  return html`<div class="cards groups">${byReason().map(group)}</div>${table()}`;
}

/// Without a choice in the address: the one with the most dead letters.
function settle() {
  if (page.id || !integrations().length) return;
  const most = [...integrations()].sort((a, b) => (b.books?.buried ?? 0) - (a.books?.buried ?? 0))[0];
  page.id = most.id;
  begin();
}

export const deadLetters = {
  title: () => (page.seq ? `Event ${page.seq}` : "Dead letters"),
  enter([id = "", seq = ""]) {
    const other = id !== page.id;
    page.seq = seq;
    if (seq) {
      Object.assign(page, { id, letter: null, raw: false, whole: false, fault: null });
      loadLetter();
    } else {
      if (other) Object.assign(page, { id, reason: "" });
      if (page.id) begin();
    }
  },
  leave() {
    Object.assign(page, { id: "", seq: "", reason: "", letter: null, list: null, load: page.load + 1 });
  },
  view() {
    if (page.seq) return letterView();
    settle();
    return html`<header class="page-head">
        <h1 tabindex="-1">Dead letters</h1>
        ${page.list?.data.length ? html`<button type="button" @click=${begin}>Refresh</button>` : nothing}
      </header>
      ${chooser()}
      ${status.now && !integrations().length
        ? empty("No integration is installed", "Dead letters belong to an integration.", html`<a class="button primary" href="#/integrations/library">Open the Integration Library</a>`)
        : listView()}`;
  },
};
