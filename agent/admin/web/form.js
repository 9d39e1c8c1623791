// The form of an integration, for installing and for editing: exactly the fields the catalog
// documents, advanced ones folded, faults at the field they belong to.
import { html, nothing } from "./vendor/lit-html.js";
import * as api from "./api.js";
import * as icons from "./icons.js";
import { checkResult, closeDialog, openDialog, redraw } from "./ui.js";
import { prose } from "./format.js";

const kKept = "***"; // how the agent shows a stored secret

export function openForm({ vendor, existing = null, name = "", others = false, done }) {
  const state = {
    values: {},      // select values that decide about other fields
    faults: {},      // by field: name, variant, start, config.<key>
    other: "",       // a fault that belongs to no field
    busy: "",
    checked: null,
    shown: new Set(), // secrets made visible
    advanced: false,
  };
  const start = (field) => {
    if (existing) {
      const value = existing.config[field.key];
      if (field.type === "secret") return "";
      return Array.isArray(value) ? value.join(", ") : String(value ?? "");
    }
    return String(vendor.variants[0]?.default_config?.[field.key] ?? field.default ?? "");
  };
  for (const field of vendor.config_fields) if (field.type === "select") state.values[field.key] = start(field);

  const needed = (field) =>
    field.required || (field.required_if !== null && (state.values[field.required_if.field] ?? "").startsWith(field.required_if.prefix));
  const offered = (field) => field.required_if === null || needed(field);
  const fields = () => vendor.config_fields.filter(offered);

  // ---- reading the form

  function valueOf(field, text) {
    if (field.type === "string_list") return text.split(",").map((part) => part.trim()).filter(Boolean);
    if (field.type === "integer" && /^-?\d+$/.test(text)) return Number(text);
    return text;
  }

  function read(form) {
    const config = {};
    for (const field of vendor.config_fields) {
      const input = form.elements[`config.${field.key}`];
      const raw = input?.value ?? "";
      const text = field.type === "secret" ? raw : raw.trim();
      if (!input) {
        if (existing && existing.config[field.key] !== undefined) config[field.key] = null;
      } else if (text !== "") {
        config[field.key] = valueOf(field, text);
      } else if (existing && existing.config[field.key] !== undefined) {
        config[field.key] = field.type === "secret" ? kKept : null;
      }
    }
    return config;
  }

  function request(form) {
    const body = { name: form.elements.name.value.trim(), variant: form.elements.variant.value, config: read(form), delivery_mode: "server_side" };
    if (form.elements.start?.value === "oldest") body.start = "oldest";
    return body;
  }

  // ---- faults

  function show(fault) {
    state.faults = Object.fromEntries(fault.fields.map(({ field, message }) => [field, message]));
    if (fault.code === "NAME_EXISTS") state.faults.name = fault.message;
    const known = new Set(["name", "variant", "start", ...fields().map((field) => `config.${field.key}`)]);
    const homeless = Object.entries(state.faults).filter(([field]) => !known.has(field)).map(([field, message]) => `${field}: ${message}`);
    state.other = homeless.length ? homeless.join(" ") : Object.keys(state.faults).length ? "" : fault.message;
    state.advanced ||= fields().some((field) => field.advanced && state.faults[`config.${field.key}`]);
    redraw();
    requestAnimationFrame(() => requestAnimationFrame(() => document.querySelector("#dialog [aria-invalid=true], #dialog .form-fault")?.focus()));
  }

  async function run(kind, form, work) {
    Object.assign(state, { busy: kind, faults: {}, other: "", checked: null });
    redraw();
    try {
      await work();
    } catch (fault) {
      show(fault.fields ? fault : new api.ApiError(0, { message: String(fault.message) }));
    }
    state.busy = "";
    redraw();
  }

  const submit = (event) => {
    event.preventDefault();
    const form = event.target;
    run("install", form, async () => {
      const one = existing ? await api.patch(existing.id, read(form)) : await api.install(vendor.key, request(form));
      closeDialog();
      done(one);
    });
  };

  const check = (event) => {
    const form = event.target.form;
    run("check", form, async () => {
      state.checked = await api.checkBefore(vendor.key, request(form));
      redraw();
      requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById("check-title")?.focus()));
    });
  };

  // ---- the view

  const describe = (id, help, fault) => [help ? `${id}-help` : "", fault ? `${id}-fault` : ""].filter(Boolean).join(" ") || nothing;
  const faultOf = (id, text) => html`<p id="${id}-fault" class="fault">${text ? html`${icons.trouble}<span>${text}</span>` : nothing}</p>`;

  function control(field, id, fault) {
    const common = { name: `config.${field.key}`, invalid: fault ? "true" : "false", needed: needed(field) ? "true" : "false", described: describe(id, field.help_text, fault) };
    if (field.type === "select") {
      return html`<select id=${id} name=${common.name} aria-required=${common.needed} aria-invalid=${common.invalid} aria-describedby=${common.described}
        @change=${(event) => {
          state.values[field.key] = event.target.value;
          redraw();
        }}>
        ${needed(field) && start(field) !== "" ? nothing : html`<option value="" ?selected=${state.values[field.key] === ""}>${needed(field) ? "Choose…" : "Default"}</option>`}
        ${field.options.map((option) => html`<option value=${option} ?selected=${option === state.values[field.key]}>${option}</option>`)}
      </select>`;
    }
    const secret = field.type === "secret";
    const visible = state.shown.has(field.key);
    const input = html`<input id=${id} name=${common.name} type=${secret && !visible ? "password" : "text"} value=${start(field)}
      placeholder=${secret && existing ? "Stored; leave empty to keep it" : secret ? "" : field.placeholder} autocomplete=${secret ? "new-password" : "off"} spellcheck="false" autocapitalize="none"
      inputmode=${field.type === "integer" ? "numeric" : nothing} aria-required=${common.needed} aria-invalid=${common.invalid} aria-describedby=${common.described}>`;
    if (!secret) return input;
    return html`<div class="with-button">${input}<button type="button" aria-pressed=${visible ? "true" : "false"} @click=${() => {
      visible ? state.shown.delete(field.key) : state.shown.add(field.key);
      redraw();
    }}>Show<span class="unseen"> ${field.label}</span></button></div>`;
  }

  function fieldView(field) {
    const id = `f-${field.key}`;
    const said = state.faults[`config.${field.key}`];
    const fault = said && /^[a-z]/.test(said) ? `${field.label} ${said}` : said;  // "is missing" wants a subject
    return html`<div class="field" data-key=${field.key}>
      <label for=${id}>${field.label}${needed(field) ? nothing : html` <span class="optional">optional</span>`}</label>
      ${control(field, id, fault)}
      ${faultOf(id, fault)}
      ${field.help_text ? html`<p id="${id}-help" class="help">${prose(field.help_text)}</p>` : nothing}
    </div>`;
  }

  const head = () => html`
    <div class="field">
      <label for="f-name">Name</label>
      <input id="f-name" name="name" value=${name} autocomplete="off" aria-required="true" aria-invalid=${state.faults.name ? "true" : "false"}
        aria-describedby=${describe("f-name", true, state.faults.name)}>
      ${faultOf("f-name", state.faults.name)}
      <p id="f-name-help" class="help">How it is called here, in logs and on the command line. It cannot change later.</p>
    </div>
    <div class="field">
      <label for="f-variant">Variant</label>
      <select id="f-variant" name="variant" aria-invalid=${state.faults.variant ? "true" : "false"} aria-describedby=${describe("f-variant", true, state.faults.variant)}>
        ${vendor.variants.map((variant) => html`<option value=${variant.key}>${variant.name}</option>`)}
      </select>
      ${faultOf("f-variant", state.faults.variant)}
      <p id="f-variant-help" class="help">${vendor.variants[0]?.description ?? ""}</p>
    </div>`;

  const startField = () => html`<div class="field">
    <label for="f-start">Begin with</label>
    <select id="f-start" name="start" aria-describedby="f-start-help">
      <option value="end">New events only</option>
      <option value="oldest">The oldest event still kept</option>
    </select>
    ${faultOf("f-start", state.faults.start)}
    <p id="f-start-help" class="help">Other integrations exist already, so this one begins with new events unless you say otherwise.</p>
  </div>`;

  openDialog({
    title: existing ? `Edit ${existing.name}` : `Install ${vendor.name}`,
    wide: true,
    view: () => html`<form class="stack integration-form" novalidate autocomplete="off" @submit=${submit}>
      ${state.other ? html`<p class="banner form-fault" data-tone="trouble" tabindex="-1">${icons.trouble}<span>${state.other}</span></p>` : nothing}
      ${existing ? nothing : head()}
      ${fields().filter((field) => !field.advanced).map(fieldView)}
      <details class="advanced" ?open=${state.advanced} @toggle=${(event) => (state.advanced = event.target.open)}>
        <summary>Advanced</summary>
        <div class="stack">
          ${!existing && others ? startField() : nothing}
          ${fields().filter((field) => field.advanced).map(fieldView)}
        </div>
      </details>
      ${state.checked ? checkResult(state.checked) : nothing}
      <div class="actions sticky">
        <button type="submit" class="primary" ?disabled=${state.busy}>${state.busy === "install"
          ? existing ? "Saving…" : "Installing…"
          : existing ? "Save changes" : "Install Integration"}</button>
        ${existing ? nothing : html`<button type="button" ?disabled=${state.busy} @click=${check}>${state.busy === "check" ? "Checking…" : "Check connection"}</button>`}
        <button type="button" class="quiet" @click=${closeDialog}>Cancel</button>
      </div>
    </form>`,
  });
}
