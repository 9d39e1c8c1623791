// Integrations: what is installed, and the library of what can be.
import { html, nothing } from "../vendor/lit-html.js";
import * as api from "../api.js";
import * as icons from "../icons.js";
import { askNow, integrations as installed, status } from "../status.js";
import { checkResult, closeDialog, complain, confirmCount, empty, failureCard, notice, openDialog, outcomeBadge, redraw, stateBadge } from "../ui.js";
import { ago, count, duration, events, figure, letters } from "../format.js";
import { openForm } from "../form.js";

const page = { tab: "installed", vendors: null, fault: null, search: "", category: "" };

// What a card is doing now, by integration id: { busy, check, test }.
const doing = new Map();
const workOf = (id) => doing.get(id) ?? {};
const note = (id, change) => {
  doing.set(id, { ...workOf(id), ...change });
  redraw();
};

async function loadCatalog() {
  try {
    page.vendors = (await api.catalog()).data;
    page.fault = null;
  } catch (fault) {
    page.fault = fault;
  }
  redraw();
}

// ---- acts on an installed integration

async function act(one, verb, said) {
  note(one.id, { busy: verb });
  try {
    await api.act(one.id, verb);
    notice(`${one.name}: ${said}.`);
  } catch (fault) {
    complain(fault);
  }
  note(one.id, { busy: "" });
  askNow();
}

async function check(one) {
  note(one.id, { busy: "check", check: null, test: null });
  try {
    const result = await api.act(one.id, "check");
    note(one.id, { check: result });
    notice(`${one.name}: ${result.passed ? "the connection works" : "the connection does not work yet"}.`, result.passed ? "ok" : "attention");
  } catch (fault) {
    complain(fault);
  }
  note(one.id, { busy: "" });
}

const kFollowMs = [300, 500, 700, 1000, 1500, 2000, 2000, 3000, 3000, 5000, 5000, 5000];
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/// Stores one marked event and follows it by its receipt until its fate is known.
async function sendTest(one) {
  note(one.id, { busy: "test", check: null, test: { status: "pending" } });
  try {
    const { seq } = await api.act(one.id, "test-event");
    note(one.id, { busy: "", test: { seq, status: "stored" } });
    for (const pause of kFollowMs) {
      await wait(pause);
      if (workOf(one.id).test?.seq !== seq) return;  // another one, or removed
      const { integrations } = await api.receipt(seq);
      const mine = integrations.find((place) => place.integration === one.id);
      if (!mine) continue;
      note(one.id, { test: { seq, ...mine } });
      if (mine.status !== "pending" && mine.status !== "in_flight") break;
    }
    const { test } = workOf(one.id);
    if (test.status === "delivered") notice(`${one.name}: the test event was delivered.`);
    else notice(`${one.name}: the test event is ${test.status.replace("_", " ")}.`, "attention");
  } catch (fault) {
    note(one.id, { busy: "", test: null });
    complain(fault);
  }
  askNow();
}

async function remove(shown) {
  // What the card shows may be two seconds old, and the count has to be right.
  const one = await api.integration(shown.id).catch(() => shown);
  const ask = (lost) => confirmCount({
    title: `Remove ${one.name}?`,
    total: lost,
    verb: "Remove integration",
    explain: (total) => html`<p>Its settings, position and dead letters are removed. This cannot be undone.</p>
      ${total > 0
        ? html`<p><strong>${events(total)}</strong> that wait or lie in its dead letters will be counted as discarded.</p>`
        : nothing}`,
    run: async (total) => {
      await api.remove(one.id, total > 0 ? total : undefined);
      doing.delete(one.id);
      notice(`${one.name} was removed.`);
      askNow();
    },
  });
  ask((one.books?.pending ?? 0) + (one.books?.buried ?? 0));
}

async function edit(one) {
  if (!page.vendors) await loadCatalog();
  const vendor = page.vendors?.find((other) => other.key === one.type);
  if (!vendor) return complain(page.fault ?? new Error(`The catalog does not know ${one.type}.`));
  openForm({
    vendor,
    existing: one,
    done: () => {
      notice(`${one.name}: the new settings are in force.`);
      askNow();
    },
  });
}

// ---- installed

function testLine(one) {
  const { test } = workOf(one.id);
  if (!test) return nothing;
  return html`<p class="test-line">${test.seq
    ? html`Test event <a href="#/live">${test.seq}</a>`
    : "Storing a test event…"} ${test.seq ? outcomeBadge(test.status) : nothing}
    ${test.partition == null ? nothing : html`<span class="place">partition ${test.partition}, offset ${count(test.offset)}</span>`}
    ${test.code ? html`<code>${test.code}</code>` : nothing}
    ${test.status === "delivered" ? html`<a href="#/live">See it in Live Events</a>` : nothing}</p>`;
}

function card(one) {
  const { busy, check: checked } = workOf(one.id);
  const { books, delivery } = one;
  const can = !busy;
  const fixed = one.read_only;
  const servers = one.config.bootstrap_servers;
  return html`<article class="card" aria-labelledby="card-${one.id}">
    <header class="card-head">
      <div>
        <h2 id="card-${one.id}">${one.name}</h2>
        <p class="soft">${one.config.topic ? html`<code>${one.config.topic}</code> at ` : nothing}${servers ? html`<code class="long">${servers}</code>` : one.type}</p>
      </div>
      ${stateBadge(one.state)}
    </header>
    ${one.failure ? failureCard(one.failure, one.failure.since ? html`<span class="since">since ${ago(one.failure.since)}</span>` : nothing) : nothing}
    <dl class="figures">
      <div><dt>Waiting</dt><dd>${count(books?.pending)}</dd></div>
      <div><dt>Acknowledged</dt><dd>${figure(books?.acked)}</dd></div>
      <div><dt>Dead letters</dt><dd>${books?.buried ? html`<a href="#/dead-letters/${encodeURIComponent(one.id)}">${count(books.buried)}</a>` : count(books?.buried)}</dd></div>
      <div><dt>Latency, median</dt><dd>${delivery?.latency_ms.count ? duration(delivery.latency_ms.p50) : "–"}</dd></div>
      <div><dt>Last delivery</dt><dd>${ago(delivery?.last_delivered_at, "–")}</dd></div>
    </dl>
    ${one.consent_categories.length ? html`<p class="soft">Only events that grant ${one.consent_categories.join(", ")}.</p>` : nothing}
    ${fixed && !one.orphaned ? html`<p class="soft">From the configuration file: change or remove it there.</p>` : nothing}
    ${one.orphaned ? html`<p class="soft">${one.origin === "file" ? "Its name is gone from the configuration file. Put it back there" : "The agent's integrations.json does not name it any more. Restore that file and restart"}, or end it on the command line:
      <code>signal-agent integrations remove "${one.name}"</code></p>` : nothing}
    ${testLine(one)}
    ${checked ? checkResult(checked) : nothing}
    ${one.orphaned ? nothing : html`<div class="actions" role="group" aria-label="Actions for ${one.name}">
      <button type="button" ?disabled=${!can || !one.enabled} @click=${() => sendTest(one)}>Send test event</button>
      <button type="button" ?disabled=${!can} @click=${() => check(one)}>${busy === "check" ? "Checking…" : "Check connection"}</button>
      ${one.enabled
        ? one.paused
          ? html`<button type="button" ?disabled=${!can} @click=${() => act(one, "resume", "delivers again")}>Resume</button>`
          : html`<button type="button" ?disabled=${!can} @click=${() => act(one, "pause", "paused; events and disk are held")}>Pause</button>`
        : nothing}
      ${fixed ? nothing : html`
        ${one.enabled
          ? html`<button type="button" ?disabled=${!can} @click=${() => disable(one)}>Disable</button>`
          : html`<button type="button" ?disabled=${!can} @click=${() => act(one, "enable", "enabled")}>Enable</button>`}
        <button type="button" ?disabled=${!can} @click=${() => edit(one)}>Edit</button>
        <button type="button" class="quiet-danger" ?disabled=${!can} @click=${() => remove(one)}>Remove</button>`}
    </div>`}
  </article>`;
}

function disable(one) {
  openDialog({
    title: `Disable ${one.name}?`,
    view: () => html`<div class="stack">
      <p>Delivery stops. The position is kept, but it no longer holds disk: events that are trimmed in the meantime count as discarded for this integration.
        To hold them instead, pause it.</p>
      <div class="actions">
        <button type="button" class="danger" @click=${() => {
          closeDialog();
          act(one, "disable", "disabled");
        }}>Disable</button>
        <button type="button" @click=${closeDialog}>Cancel</button>
      </div>
    </div>`,
  });
}

function installedTab() {
  if (!status.now) return html`<p class="loading">Asking the agent…</p>`;
  const all = installed();
  if (!all.length) {
    return empty("Nothing is installed yet", "Install an integration from the library. Events that arrive before are kept and delivered then.",
      html`<a class="button primary" href="#/integrations/library">Open the Integration Library</a>`);
  }
  return html`<div class="cards">${all.map(card)}</div>`;
}

// ---- library

const title = (word) => word.charAt(0).toUpperCase() + word.slice(1).replaceAll("_", " ");

function fits(vendor) {
  if (page.category && vendor.category !== page.category) return false;
  const text = `${vendor.key} ${vendor.name} ${vendor.description}`.toLowerCase();
  return page.search.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function freeName(wanted) {
  const taken = new Set(installed().map((one) => one.name));
  let name = wanted;
  for (let n = 2; taken.has(name); n += 1) name = `${wanted} ${n}`;
  return name;
}

function openInstall(vendor) {
  openForm({
    vendor,
    name: freeName(vendor.name),
    others: installed().length > 0,
    done: (one) => {
      notice(`${one.name} is installed.`);
      askNow();
      addEventListener("hashchange", () => openInstalled(one), { once: true });  // after the page has turned
      location.hash = "#/integrations";
    },
  });
}

function openInstalled(one) {
  openDialog({
    title: `${one.name} is installed`,
    view: () => html`<div class="stack">
      <p>It delivers from now on. Send a test event to see the whole path work: stored here, sent, acknowledged by Kafka.</p>
      <div class="actions">
        <button type="button" class="primary" autofocus @click=${() => {
          closeDialog();
          sendTest(one);
        }}>Send test event</button>
        <button type="button" @click=${closeDialog}>Not now</button>
      </div>
    </div>`,
  });
}

function vendorCard(vendor) {
  const uses = installed().filter((one) => one.type === vendor.key).length;
  return html`<article class="card vendor" aria-labelledby="vendor-${vendor.key}">
    <header class="card-head">
      <h2 id="vendor-${vendor.key}">${vendor.name}</h2>
      <span class="tag">${title(vendor.category)}</span>
    </header>
    <p>${vendor.description}</p>
    <p class="soft">${uses ? `${uses} installed` : "Not installed"}${vendor.status === "beta" ? " · Beta" : ""}
      ${/^https:\/\//.test(vendor.website) ? html` · <a href=${vendor.website} target="_blank" rel="noopener noreferrer">Website<span class="unseen"> of ${vendor.name}, opens in a new tab</span></a>` : nothing}</p>
    <div class="actions"><button type="button" class="primary" aria-label="Install ${vendor.name}" @click=${() => openInstall(vendor)}>Install</button></div>
  </article>`;
}

function libraryTab() {
  if (page.fault) return empty("The library could not be read", page.fault.message, html`<button type="button" @click=${loadCatalog}>Try again</button>`);
  if (!page.vendors) return html`<p class="loading">Asking the agent…</p>`;
  const categories = [...new Set(page.vendors.map((vendor) => vendor.category))].sort();
  const found = page.vendors.filter(fits);
  return html`<div class="toolbar" role="search">
      <div class="search"><label for="search" class="unseen">Search the library</label>${icons.search}
        <input id="search" type="search" placeholder="Search the library" autocomplete="off" @input=${(event) => {
          page.search = event.target.value;
          redraw();
        }}></div>
      <div class="chips" role="group" aria-label="Category">
        ${["", ...categories].map((name) => html`<button type="button" class="chip" aria-pressed=${name === page.category ? "true" : "false"}
          @click=${() => {
            page.category = name;
            redraw();
          }}>${name ? title(name) : "All"}</button>`)}
      </div>
    </div>
    <p class="unseen" role="status">${found.length} found</p>
    ${found.length
      ? html`<div class="cards vendors">${found.map(vendorCard)}</div>`
      : empty("Nothing fits", "Try another word, or all categories.")}`;
}

// ---- the view

const tab = (name, label, href) => html`<a href=${href} aria-current=${page.tab === name ? "page" : nothing}>${label}</a>`;

export const integrations = {
  title: () => (page.tab === "library" ? "Integration Library" : "Integrations"),
  enter(parts) {
    page.tab = parts[0] === "library" ? "library" : "installed";
    page.search = "";
    if (page.tab === "library" && !page.vendors) loadCatalog();
  },
  view() {
    const buried = installed().reduce((sum, one) => sum + (one.books?.buried ?? 0), 0);
    return html`<header class="page-head">
        <h1 tabindex="-1">Integrations</h1>
        ${page.tab === "installed" && buried ? html`<a href="#/dead-letters">${letters(buried)}</a>` : nothing}
      </header>
      <nav class="tabs" aria-label="Integrations">
        ${tab("installed", html`Installed${status.now ? html` <span class="soft">${installed().length}</span>` : nothing}`, "#/integrations")}
        ${tab("library", "Integration Library", "#/integrations/library")}
      </nav>
      ${page.tab === "library" ? libraryTab() : installedTab()}`;
  },
};
