// Line icons on a 20 x 20 grid, drawn with currentColor. Always decoration: the word stands beside.
import { html, svg } from "./vendor/lit-html.js";

const icon = (paths) => html`<svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false">${paths}</svg>`;

export const overview = icon(svg`<path d="M3 11h3l2.5-6 3.5 10 2.2-4H17"/>`);
export const live = icon(svg`<path d="M3 5.5h14M3 10h14M3 14.5h8"/><circle cx="15" cy="14.5" r="1.6"/>`);
export const integrations = icon(svg`<rect x="3" y="3" width="5.5" height="5.5" rx="1.2"/><rect x="11.5" y="11.5" width="5.5" height="5.5" rx="1.2"/><path d="M8.5 5.75H13a1.5 1.5 0 0 1 1.5 1.5v4.25"/>`);
export const deadLetters = icon(svg`<rect x="3" y="4.5" width="14" height="11" rx="1.6"/><path d="m3.5 6 6.5 5 6.5-5"/>`);
export const ok = icon(svg`<circle cx="10" cy="10" r="7"/><path d="m6.8 10.2 2.2 2.2 4.2-4.6"/>`);
export const attention = icon(svg`<path d="M10 3.2 17.4 16H2.6Z"/><path d="M10 8.2v3.6m0 2v.2"/>`);
export const trouble = icon(svg`<path d="M7 3h6l4 4v6l-4 4H7l-4-4V7Z"/><path d="m7.6 7.6 4.8 4.8m0-4.8-4.8 4.8"/>`);
export const working = icon(svg`<circle cx="10" cy="10" r="7" stroke-dasharray="3 2.5"/><path d="M10 6.2V10l2.6 1.8"/>`);
export const quiet = icon(svg`<circle cx="10" cy="10" r="7"/><path d="M6.8 10h6.4"/>`);
export const stored = icon(svg`<path d="M3.5 11v4.5h13V11M10 3v9m0 0 3.2-3.2M10 12 6.8 8.8"/>`);
export const filtered = icon(svg`<path d="M3 4.5h14l-5.3 6.2V16l-3.4-1.8v-3.5Z"/>`);
export const pause = icon(svg`<path d="M7 4.5v11m6-11v11"/>`);
export const play = icon(svg`<path d="M6.5 4.5v11l9-5.5Z"/>`);
export const close = icon(svg`<path d="m5 5 10 10M15 5 5 15"/>`);
export const search = icon(svg`<circle cx="9" cy="9" r="5.2"/><path d="m13 13 4 4"/>`);
export const arrow = icon(svg`<path d="M4 10h11m-4-4 4 4-4 4"/>`);
export const back = icon(svg`<path d="M16 10H5m4-4-4 4 4 4"/>`);
