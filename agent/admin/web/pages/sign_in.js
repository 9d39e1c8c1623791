// Sign-in with the token of the management API. The token is never kept here: the agent answers
// with a cookie that scripts cannot read.
import { html, nothing } from "../vendor/lit-html.js";
import * as api from "../api.js";
import * as icons from "../icons.js";
import { redraw } from "../ui.js";

let busy = false;
let wrong = "";

async function submit(event, done) {
  event.preventDefault();
  const field = event.target.elements.token;
  const token = field.value.trim();
  wrong = "";
  if (!token) {
    wrong = "Enter the token.";
    redraw();
    field.focus();
    return;
  }
  busy = true;
  redraw();
  try {
    await api.signIn(token);
    field.value = "";
    await done();
  } catch (fault) {
    wrong = fault.status === 401
      ? "This is not the token of this agent."
      : fault.status === 429
        ? `Too many wrong tokens. Try again in ${fault.retryAfter || 1} s.`
        : fault.message;
    field.select();
    field.focus();
  }
  busy = false;
  redraw();
}

export function signIn({ fault, done, retry }) {
  return html`<main class="sign-in">
    <div class="sign-in-card">
      <p class="brand"><img src="mark.svg" alt="" width="36" height="36">signal-agent</p>
      ${fault
        ? html`<h1 tabindex="-1">The agent does not answer</h1>
            <p>${fault.message}</p>
            <div class="actions"><button type="button" class="primary" @click=${retry}>Try again</button></div>`
        : html`<h1 tabindex="-1">Sign in</h1>
            <form class="stack" novalidate @submit=${(event) => submit(event, done)}>
              <div class="field">
                <label for="token">Token</label>
                <input id="token" name="token" type="password" autocomplete="current-password" spellcheck="false"
                  aria-required="true" aria-invalid=${wrong ? "true" : "false"} aria-describedby="token-help token-fault" autofocus>
                <p id="token-fault" class="fault" aria-live="polite">${wrong ? html`${icons.trouble}${wrong}` : nothing}</p>
                <p id="token-help" class="help">The value of <code>admin.token</code> in the configuration. Without one, the agent made a token at its first start:
                  <code>sudo cat /var/lib/signal-agent/admin.token</code></p>
              </div>
              <div class="actions"><button type="submit" class="primary" ?disabled=${busy}>${busy ? "Signing in…" : "Sign in"}</button></div>
            </form>`}
    </div>
  </main>`;
}
