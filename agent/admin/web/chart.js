// Small line charts as inline SVG. The SVG holds only shapes and stretches; words are HTML, so that
// they stay sharp. Every chart says in words what it shows, and can be read as a table.
import { html, svg, nothing } from "./vendor/lit-html.js";

const kWidth = 600;
const kHeight = 150;
const kGapMs = 40_000;

/// The next of 1, 2, 5 x 10^n at or above `value`, never below `least`.
export function niceMax(value, least) {
  if (value <= least) return least;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((top) => top >= value);
}

function pathOf(points, from, span, top) {
  let path = "";
  let last = -Infinity;
  for (const [at, value] of points) {
    const x = ((at - from) / span) * kWidth;
    const y = kHeight - Math.min(1, value / top) * (kHeight - 4);
    path += `${at - last > kGapMs ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
    last = at;
  }
  return path;
}

function areaOf(points, from, span, top) {
  if (points.length < 2) return "";
  const x = (at) => (((at - from) / span) * kWidth).toFixed(1);
  return `${pathOf(points, from, span, top).replaceAll("M", "L").replace(/^L/, "M")}L${x(points.at(-1)[0])} ${kHeight}L${x(points[0][0])} ${kHeight}Z`;
}

/// series: [{ label, points: [[ms, value]...], area }], `write` makes a value a word.
export function chart({ id, title, note, series, write, least = 1 }) {
  const all = series.flatMap((one) => one.points);
  if (all.length < 2) {
    return html`<figure class="chart"><figcaption><h3>${title}</h3></figcaption>
      <p class="chart-wait">The line begins with the second reading.</p></figure>`;
  }
  const to = Math.max(...all.map(([at]) => at));
  const first = Math.min(...all.map(([at]) => at));
  const span = Math.max(60_000, to - first);
  const from = to - span;
  const top = niceMax(Math.max(...all.map(([, value]) => value)), least);
  const minutes = Math.round(span / 60_000);
  const told = series.map(({ label, points }) =>
    `${label}: now ${write(points.at(-1)[1])}, at most ${write(Math.max(...points.map(([, value]) => value)))}`);
  const summary = `${title} over the last ${minutes === 1 ? "minute" : `${minutes} minutes`}. ${told.join(". ")}.`;
  // Ten rows, evenly over the time shown.
  const rows = Array.from({ length: 10 }, (_, i) => from + (span * (i + 1)) / 10);
  const near = (points, at) => points.findLast(([when]) => when <= at + 1000 && at - when < kGapMs)?.[1];
  return html`<figure class="chart">
    <figcaption>
      <h3>${title}</h3>
      <ul class="legend">${series.map(({ label, points }, i) => html`<li>
        <svg class="key" data-series=${i} viewBox="0 0 24 6" aria-hidden="true"><path d="M1 3h22"/></svg>
        ${label} <strong>${write(points.at(-1)[1])}</strong></li>`)}</ul>
    </figcaption>
    <div class="plot">
      <span class="axis-top" aria-hidden="true">${write(top)}</span>
      <svg viewBox="0 0 ${kWidth} ${kHeight}" preserveAspectRatio="none" role="img" aria-label=${summary}>
        ${[0.02, 0.5].map((share) => svg`<path class="grid" d=${`M0 ${share * kHeight}H${kWidth}`}/>`)}
        <path class="grid base" d=${`M0 ${kHeight - 0.5}H${kWidth}`}/>
        ${series.map(({ points, area }, i) => svg`
          ${area ? svg`<path class="area" data-series=${i} d=${areaOf(points, from, span, top)}/>` : nothing}
          <path class="line" data-series=${i} d=${pathOf(points, from, span, top)}/>`)}
      </svg>
      <p class="axis-time" aria-hidden="true"><span>${minutes === 1 ? "a minute ago" : `${minutes} min ago`}</span><span>now</span></p>
    </div>
    ${note ? html`<p class="help">${note}</p>` : nothing}
    <details class="numbers">
      <summary>The same as a table<span class="unseen">: ${title}</span></summary>
      <div class="scroll" tabindex="0" role="region" aria-label="${title} as a table">
        <table>
          <caption class="unseen">${title}</caption>
          <thead><tr><th scope="col">Time</th>${series.map(({ label }) => html`<th scope="col" class="number">${label}</th>`)}</tr></thead>
          <tbody>${rows.map((at) => html`<tr>
            <th scope="row">${new Date(at).toLocaleTimeString("en-GB")}</th>
            ${series.map(({ points }) => {
              const value = near(points, at);
              return html`<td class="number">${value === undefined ? "–" : write(value)}</td>`;
            })}</tr>`)}</tbody>
        </table>
      </div>
    </details>
  </figure>`;
}
