// The console: who is signed in, where in the console they are, and the frame around every page.
import { html, render, nothing } from "./vendor/lit-html.js";
import * as api from "./api.js";
import * as icons from "./icons.js";
import { closeDialog, focusHeading, onDraw, redraw } from "./ui.js";
import { findings, startStatus, status, stopStatus } from "./status.js";
import { splitSentence } from "./format.js";
import { overview } from "./pages/overview.js";
import { live, watch } from "./pages/live.js";
import { integrations } from "./pages/integrations.js";
import { deadLetters } from "./pages/dead_letters.js";
import { signIn } from "./pages/sign_in.js";

const pages = { overview, live, integrations, "dead-letters": deadLetters };
const host = document.getElementById("app");

const app = { signedIn: null, fault: null, page: null, route: [], summary: "", theme: "system" };

// ---- where we are: #/page/part/part?name=value

function readRoute() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  let parts;
  try {
    parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    parts = [];
  }
  const name = Object.hasOwn(pages, parts[0] ?? "") ? parts[0] : "overview";
  return { name, parts: parts.slice(1), values: new URLSearchParams(search) };
}

function go() {
  if (!app.signedIn) return redraw();
  const { name, parts, values } = readRoute();
  const page = pages[name];
  if (document.getElementById("dialog").open) closeDialog();
  if (app.page !== page) app.page?.leave?.();
  const moved = app.page !== null;
  app.page = page;
  app.name = name;
  page.enter?.(parts, values);
  redraw();
  if (moved) {
    requestAnimationFrame(() => requestAnimationFrame(() => {
      focusHeading();
      scrollTo(0, 0);
    }));
  }
}

// ---- signing in and out

async function begin() {
  try {
    await api.session();
    app.signedIn = true;
    app.fault = null;
    startStatus();
    watch(true);
  } catch (fault) {
    app.signedIn = false;
    app.fault = fault.status === 401 ? null : fault;
  }
  go();
}

function signedOut() {
  if (app.signedIn === false) return;
  app.signedIn = false;
  app.page?.leave?.();
  app.page = null;
  if (document.getElementById("dialog").open) closeDialog();
  watch(false);
  stopStatus();
  redraw();
}

async function leave() {
  await api.signOut().catch(() => {});
  signedOut();
}

api.events.addEventListener("signed-out", signedOut);

// ---- light or dark: the system's, unless the person says otherwise

const kThemes = ["system", "light", "dark"];

function setTheme(theme) {
  app.theme = kThemes.includes(theme) ? theme : "system";
  document.documentElement.dataset.theme = app.theme;
  try {
    localStorage.setItem("signal-agent-theme", app.theme);
  } catch {
    // ignored because the choice then lasts as long as the page
  }
  redraw();
}

// ---- the frame

const entries = [
  ["overview", "Overview", icons.overview],
  ["live", "Live Events", icons.live],
  ["integrations", "Integrations", icons.integrations],
  ["dead-letters", "Dead letters", icons.deadLetters],
];

const tone = () => (status.fault ? "trouble" : (status.now?.level ?? "quiet"));
const words = { ok: "All is well", attention: "Needs attention", trouble: "Trouble", quiet: "Loading" };

function frame() {
  const buried = status.now?.path.buried ?? 0;
  return html`<a class="skip" href="#main" @click=${(event) => {
      event.preventDefault();
      focusHeading();
    }}>Skip to the content</a>
    <div class="frame">
      <header class="side">
        <a class="brand" href="#/overview"><img src="mark.svg" alt="" width="28" height="28">signal-agent</a>
        <nav aria-label="Console">
          <ul>
            ${entries.map(([name, label, icon]) => html`<li>
              <a href="#/${name}" aria-current=${app.name === name ? "page" : nothing}>${icon}<span>${label}</span>
              ${name === "dead-letters" && buried > 0
                ? html`<span class="tally"><span class="unseen">, </span>${buried > 999 ? "999+" : buried}</span>`
                : nothing}</a>
            </li>`)}
          </ul>
        </nav>
        <div class="side-foot">
          <p class="side-status" data-tone=${tone()}>${icons[tone()]}<span>${status.fault ? "Not reachable" : words[tone()]}</span></p>
          <label class="theme"><span>Appearance</span>
            <select @change=${(event) => setTheme(event.target.value)}>
              ${kThemes.map((theme) => html`<option value=${theme} ?selected=${theme === app.theme}>${theme.charAt(0).toUpperCase() + theme.slice(1)}</option>`)}
            </select>
          </label>
          <button type="button" class="quiet" @click=${leave}>Sign out</button>
          ${status.now ? html`<p class="version">Version ${status.now.version}</p>` : nothing}
        </div>
      </header>
      <main id="main">
        ${status.fault
          ? html`<p class="banner" data-tone="trouble">${icons.trouble}<span>${status.fault.message} What you see may be old; the console keeps asking.</span></p>`
          : nothing}
        ${app.page.view()}
      </main>
    </div>
    <p class="unseen" aria-live="polite">${app.summary}</p>`;
}

/// The summary is read out when it says something new, not when a number in it moves.
function summarise() {
  const text = status.fault ? "The agent does not answer." : (status.now?.sentence ?? "");
  const still = (sentence) => sentence.replace(/\d[\d.,]*\s*(ms|s|min|h|days?)?/g, "#");
  if (still(text) !== still(app.summary)) app.summary = text;
}

onDraw(() => {
  if (app.signedIn === null) return;
  if (!app.signedIn) {
    document.title = "Sign in · signal-agent";
    render(signIn({ fault: app.fault, done: begin, retry: begin }), host);
    return;
  }
  if (!app.page) return;
  summarise();
  const mark = status.now && status.now.level !== "ok" ? `${splitSentence(findings(status.now)[0])[0]} · ` : "";
  document.title = `${app.name === "overview" ? mark : ""}${app.page.title()} · signal-agent`;
  render(frame(), host);
});

addEventListener("hashchange", go);
try {
  setTheme(localStorage.getItem("signal-agent-theme"));
} catch {
  setTheme("system");
}
begin();
