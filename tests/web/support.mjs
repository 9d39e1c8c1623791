// The browser of the tests, and what they all ask of a page.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.WEB_MODULES}/package.json`);
const { chromium } = require("playwright-core");
const { AxeBuilder } = require("@axe-core/playwright");

export const kDesktop = { width: 1280, height: 900 };
export const kPhone = { width: 390, height: 844 };
export const kSmallest = { width: 320, height: 640 };

/// A bound for what is broken, not a promise: a machine that runs other tests may be slow.
const kPatience = 60_000;

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync"],
  });

/// A page of a fresh browser profile. Everything the browser complains about is collected:
/// a script error or a refusal by the content policy fails the test in `quiet`.
export async function open(browser, url, { dark = false, viewport = kDesktop, ...more } = {}) {
  const context = await browser.newContext({ viewport, colorScheme: dark ? "dark" : "light", reducedMotion: "reduce", ...more });
  context.setDefaultTimeout(kPatience);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(`script error: ${error.message}`));
  page.on("console", (message) => {
    // An answer of 4xx is logged by the browser itself and is the console's daily bread.
    if (message.type() === "error" && !/the server responded with a status of/.test(message.text())) complaints.push(message.text());
  });
  const foreign = [];
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !/^(blob|data):/.test(request.url())) foreign.push(request.url());
  });
  await page.goto(url);
  page.quiet = () => {
    assert.deepEqual(complaints, []);
    assert.deepEqual(foreign, [], "a request to somebody else");
  };
  page.done = async () => {
    page.quiet();
    await context.close();
  };
  return page;
}

export async function signIn(page, token) {
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Overview", level: 1 }).waitFor();
}

export async function visit(page, hash, heading) {
  await page.evaluate((to) => (location.hash = to), hash);
  await page.getByRole("heading", { name: heading, level: 1 }).waitFor();
}

/// No accessibility fault that axe knows, and nothing that makes the page scroll sideways.
export async function accessible(page, what) {
  const { violations, passes } = await new AxeBuilder({ page }).analyze();
  assert.ok(passes.length > 5, `${what}: axe looked at nothing`);
  const faults = violations.map((fault) => `${what}: ${fault.id}: ${fault.help}\n    ${fault.nodes.map((node) => `${node.html.slice(0, 200)}\n      ${node.any[0]?.message ?? ""}`).join("\n    ")}`);
  assert.deepEqual(faults, []);
  const sideways = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(sideways <= 0, `${what}: the page is ${sideways} px too wide`);
}

/// The page renders once a frame: reads until it shows `wanted`, then asserts, so that a fault shows both.
export async function becomes(read, wanted, ms = kPatience) {
  const end = Date.now() + ms;
  let seen = await read();
  while (seen !== wanted && Date.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    seen = await read();
  }
  assert.equal(seen, wanted);
}

/// Waits until `probe` answers something true; the message says what was waited for.
export async function until(what, probe, { ms = kPatience, every = 50 } = {}) {
  const end = Date.now() + ms;
  for (;;) {
    const answer = await probe();
    if (answer) return answer;
    if (Date.now() > end) assert.fail(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, every));
  }
}
