// Overview: is it all right, and how do the events flow?
import { html, nothing } from "../vendor/lit-html.js";
import * as icons from "../icons.js";
import { chart } from "../chart.js";
import { findings, integrations, status } from "../status.js";
import { badge, failureCard, stateBadge } from "../ui.js";
import { ago, bytes, count, duration, figure, prose, rate, splitSentence } from "../format.js";

const levels = { ok: ["ok", "All is well"], attention: ["attention", "Attention"], trouble: ["trouble", "Trouble"] };

// A failure's card below says what was seen and what to do: here its headline is enough.
const isOnCard = (finding) =>
  integrations().some(({ name, failure }) => failure && finding.startsWith(`"${name}" `) && finding.includes(`(${failure.code})`));
const brief = (finding) => (isOnCard(finding) ? `${splitSentence(finding)[0]}.` : finding);

function summary(now) {
  const [first, ...notes] = findings(now).map(brief);
  const [headline, rest] = splitSentence(first);
  return html`<section class="summary" data-tone=${now.level} aria-label="Status">
    <span class="summary-mark">${icons[now.level]}</span>
    <div>
      ${headline === levels[now.level][1] ? nothing : html`<p class="summary-level">${levels[now.level][1]}</p>`}
      <p class="headline">${headline}</p>
      ${rest ? html`<p class="summary-rest">${prose(rest)}</p>` : nothing}
      ${notes.length
        ? html`<ul class="notes">${notes.map((note) => html`<li>${prose(note)}</li>`)}</ul>`
        : nothing}
    </div>
  </section>`;
}

const step = (label, value, under) => html`<li class="step">
  <span class="step-name">${label}</span>
  <span class="step-value">${figure(value)}</span>
  <span class="step-rate">${under}</span>
</li>`;

function path(now) {
  const rates = status.samples.at(-1)?.rates ?? {};
  const { received, stored, sent, acked, buried, pending, filtered, discarded } = now.path;
  return html`<section aria-labelledby="path-title">
    <h2 id="path-title">The path of events</h2>
    <ol class="path">
      ${step("Received", received, rate(rates.received))}
      ${step("Stored", stored, rate(rates.stored))}
      ${step("Sent", sent, rate(rates.sent))}
      ${step("Acknowledged", acked, rate(rates.acked))}
      ${step("Dead letters", buried, buried ? html`<a href="#/dead-letters">Look at them</a>` : "none now")}
    </ol>
    <p class="path-foot"><span><strong>${count(pending)}</strong> waiting</span>
      <span><strong>${count(filtered)}</strong> filtered</span>
      <span><strong>${count(discarded)}</strong> discarded</span>
      <a href="#/live">Watch live</a></p>
    <p class="help">Received and sent count from the start of this process; the others last. Acknowledged and dead letters add up all integrations.</p>
  </section>`;
}

function charts() {
  const { samples } = status;
  const rated = samples.filter((sample) => sample.rates);
  const line = (name) => rated.map((sample) => [sample.at, sample.rates[name]]);
  return html`<section class="charts" aria-label="Over time">
    ${chart({
      title: "Events per second",
      series: [
        { label: "Stored", points: line("stored") },
        { label: "Acknowledged", points: line("acked") },
      ],
      write: rate,
      least: 1,
    })}
    ${chart({
      title: "Backlog",
      series: [{ label: "Waiting", points: samples.map((sample) => [sample.at, sample.pending]), area: true }],
      write: figure,
      least: 10,
    })}
  </section>`;
}

function row(one) {
  const { books, delivery } = one;
  return html`<tr role="row">
    <th scope="row" role="rowheader"><a href="#/integrations">${one.name}</a></th>
    <td role="cell" class="end">${stateBadge(one.state)}</td>
    <td role="cell" class="number" data-label="Waiting">${count(books?.pending)}${one.oldest_pending_at && books?.pending > 0
      ? html`<span class="under">oldest ${ago(one.oldest_pending_at)}</span>`
      : nothing}</td>
    <td role="cell" class="number" data-label="Acknowledged">${figure(books?.acked)}</td>
    <td role="cell" class="number" data-label="Dead letters">${books?.buried ? html`<a href="#/dead-letters/${encodeURIComponent(one.id)}">${count(books.buried)}</a>` : count(books?.buried)}</td>
    <td role="cell" class="number" data-label="Latency">${delivery?.latency_ms.count
      ? html`${duration(delivery.latency_ms.p50)}<span class="under">99 %: ${duration(delivery.latency_ms.p99)}</span>`
      : "–"}</td>
    <td role="cell" data-label="Last delivery">${ago(delivery?.last_delivered_at, "–")}</td>
  </tr>`;
}

function integrationTable() {
  const all = integrations();
  if (!all.length) return nothing;
  const failing = all.filter((one) => one.failure);
  return html`<section aria-labelledby="integrations-title">
    <h2 id="integrations-title">Integrations</h2>
    ${failing.map((one) => html`<article class="card failing">
      <h3 class="with-badge">${one.name} ${stateBadge(one.state)}</h3>
      ${failureCard(one.failure, one.failure.since ? html`<span class="since">since ${ago(one.failure.since)}</span>` : nothing)}
    </article>`)}
    <div class="scroll rows" tabindex="0" role="region" aria-label="Integrations, state and figures">
      <table role="table">
        <caption class="unseen">Integrations with their state, what waits and what was delivered</caption>
        <thead role="rowgroup"><tr role="row">
          <th scope="col" role="columnheader">Name</th><th scope="col" role="columnheader">State</th><th scope="col" role="columnheader" class="number">Waiting</th>
          <th scope="col" role="columnheader" class="number">Acknowledged</th><th scope="col" role="columnheader" class="number">Dead letters</th>
          <th scope="col" role="columnheader" class="number">Latency, median</th><th scope="col" role="columnheader">Last delivery</th>
        </tr></thead>
        <tbody role="rowgroup">${all.map(row)}</tbody>
      </table>
    </div>
  </section>`;
}

function machine(now) {
  const { spool, intake } = now;
  const share = spool.logical_bytes == null ? null : (100 * spool.logical_bytes) / spool.max_bytes;
  return html`<section aria-labelledby="machine-title">
    <h2 id="machine-title">Spool and intake</h2>
    <dl class="facts">
      <div><dt>Intake</dt><dd>${now.ready ? badge("ok", "Takes events") : badge("trouble", "Refuses events")}
        ${now.not_ready ? html`<span class="under">${now.not_ready.message}</span>` : nothing}</dd></div>
      <div><dt>Spool</dt><dd>${spool.state === "open" ? badge("ok", "Open") : badge(spool.state === "failed" ? "trouble" : "working", spool.state)}
        ${spool.error ? html`<span class="under">${spool.error}</span>` : nothing}</dd></div>
      <div><dt>Spool use</dt><dd>${bytes(spool.logical_bytes)} <span class="soft">of ${bytes(spool.max_bytes)}</span>
        ${share == null ? nothing : html`<meter min="0" max="100" high="80" .value=${share} aria-label="Spool use">${share.toFixed(0)} %</meter>`}</dd></div>
      <div><dt>Disk free</dt><dd>${bytes(spool.disk_free_bytes)} <span class="soft">keeps ${bytes(spool.min_free_bytes)}</span></dd></div>
      <div><dt>Commit to disk</dt><dd>${spool.commit_ms ? html`${duration(spool.commit_ms.p50)} <span class="soft">99 %: ${duration(spool.commit_ms.p99)}</span>` : "–"}</dd></div>
      <div><dt>Refused events</dt><dd>${count(Object.values(intake.rejected).reduce((sum, n) => sum + n, 0))}
        <span class="soft">duplicates ${count(intake.duplicate_events)}</span></dd></div>
      <div><dt>Open connections</dt><dd>${count(intake.connections)}</dd></div>
      <div><dt>Started</dt><dd>${ago(now.started_at)}</dd></div>
    </dl>
  </section>`;
}

const firstSteps = () => html`<section class="card steps" aria-labelledby="first-title">
  <h2 id="first-title">Start here</h2>
  <ol>
    <li><strong>Install an integration.</strong> <span>Events that arrive before are kept and delivered then.</span></li>
    <li><strong>Send a test event</strong> <span>from the integration's card, and see it delivered.</span></li>
    <li><strong>Point your applications at the intake</strong>, <span>for example</span>
      <code class="block">curl http://127.0.0.1:8080/v1/events -d '{"type":"track","event":"Hello","userId":"1"}'</code></li>
  </ol>
  <div class="actions"><a class="button primary" href="#/integrations/library">Open the Integration Library</a></div>
</section>`;

export const overview = {
  title: () => "Overview",
  view() {
    const { now } = status;
    return html`<header class="page-head"><h1 tabindex="-1">Overview</h1></header>
      ${now
        ? html`${summary(now)} ${integrations().length ? nothing : firstSteps()} ${path(now)} ${charts()} ${integrationTable()} ${machine(now)}`
        : html`<p class="loading">Asking the agent…</p>`}`;
  },
};
