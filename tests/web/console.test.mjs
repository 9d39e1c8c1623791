// The console in a real browser against a fake agent: states that are hard to bring about at once.
import assert from "node:assert/strict";
import { after, before, beforeEach, afterEach, test } from "node:test";
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { dirname, join, normalize } from "node:path";
import { accessible, becomes, kDesktop, kPhone, kSmallest, launch, open, signIn, until, visit } from "./support.mjs";
import { emptyWorld, integration, kCatalog, kFailure, letter, publish, startFake } from "./fake_agent.mjs";

const kFolders = [process.env.WEB_SOURCES, process.env.WEB_VENDOR];
const kHostile = `"><img src=x onerror="window.hurt=1"><script>window.hurt=1</script>\${window.hurt=1}{{7*7}}`;

let browser;
let world;
let fake;
before(async () => (browser = await launch()));
after(() => browser.close());
beforeEach(async () => {
  world = emptyWorld();
  fake = await startFake(world, kFolders);
});
afterEach(() => fake.stop());

async function signedIn(hash = "", options = {}) {
  const page = await open(browser, fake.url, options);
  await signIn(page, fake.token);
  if (hash) await page.evaluate((to) => (location.hash = to), hash);
  return page;
}

function busyWorld() {
  const good = integration("int_good", "Confluent Cloud", { oldest_pending_at: new Date().toISOString() });
  good.books = { stored: 1000, acked: 900, filtered: 20, discarded: 2, damaged: 0, buried: 30, pending: 48, balance_difference: 0 };
  good.delivery.last_delivered_at = new Date().toISOString();
  good.delivery.latency_ms = { count: 900, p50: 63, p99: 255 };
  const bad = integration("int_bad", "Warehouse", { type: "apache_kafka", state: "halted", failure: { ...kFailure, since: new Date(Date.now() - 190_000).toISOString() }, origin: "file", read_only: true });
  const still = integration("int_still", "Staging", { paused: true, state: "paused", consent_categories: ["analytics"] });
  const off = integration("int_off", "Archive", { enabled: false, state: "disabled" });
  const lost = integration("int_lost", "Old name", { orphaned: true, state: "orphaned", origin: "file", read_only: true, delivery: null });
  world.integrations = [good, bad, still, off, lost];
  Object.assign(world, { seq: 1000, received: 1003, sent: 930, notes: ['"Staging" is paused; 0 events wait.'], skipped: 312 });
  world.letters.set("int_good", Array.from({ length: 30 }, (_, i) => letter(100 + i, i % 5 ? {} : { reason: "authentication", code: "AUTHENTICATION_FAILED", problem: "Authentication failure", self_healing: true })));
  publish(world, { seq: 998, status: "stored" });
  publish(world, { seq: 998, integration: "int_good", integration_name: "Confluent Cloud", status: "delivered", partition: 3, offset: 7788, latency_ms: 40 });
  publish(world, { seq: 999, integration: "int_good", integration_name: "Confluent Cloud", status: "buried", code: "MESSAGE_TOO_LARGE" });
  publish(world, { seq: 1000, integration: "int_still", integration_name: "Staging", status: "filtered" });
  publish(world, { seq: 997, integration: "int_bad", integration_name: "Warehouse", status: "failed", code: "AUTHENTICATION_FAILED" });
}

// ---- signing in

test("a wrong token is refused at its field, the right one opens the console and is kept nowhere", async () => {
  const page = await open(browser, fake.url);
  await page.getByLabel("Token").fill("wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("This is not the token of this agent.").waitFor();
  await becomes(() => page.getByLabel("Token").getAttribute("aria-invalid"), "true");
  assert.ok(await page.getByLabel("Token").evaluate((field) => field === document.activeElement));
  await signIn(page, fake.token);
  const kept = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }) + document.cookie + document.documentElement.outerHTML);
  assert.ok(!kept.includes(fake.token), "the token can be read from the page");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  assert.equal(world.sessions.size, 0);
  await page.done();
});

test("a session that ends leads back to the sign-in page", async () => {
  const page = await signedIn();
  world.sessions.clear();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await page.done();
});

test("an agent that stops answering is told about, and forgotten when it answers again", async () => {
  busyWorld();
  const page = await signedIn();
  world.down = true;
  await page.getByText("What you see may be old").waitFor();
  world.down = false;
  await page.getByText("What you see may be old").waitFor({ state: "detached" });
  await page.done();
});

// ---- quick setup

test("quick setup works with the keyboard alone, from sign-in to a delivered test event", async () => {
  const page = await open(browser, fake.url);
  const { keyboard } = page;
  const focused = () => page.evaluate(() => {
    const { activeElement: here } = document;
    return (here?.labels?.[0]?.innerText ?? here?.getAttribute("aria-label") ?? here?.innerText ?? "").trim();
  });
  const tabTo = async (wanted) => {
    const seen = [];
    for (let i = 0; i < 60; i += 1) {
      await keyboard.press("Tab");
      const name = await focused();
      if (wanted.test(name)) return;
      seen.push(name);
    }
    assert.fail(`Tab never reached ${wanted}; it went ${seen.join(" | ")}`);
  };
  await page.getByLabel("Token").waitFor();
  if (!/Token/.test(await focused())) await tabTo(/^Token/);
  await keyboard.type(fake.token);
  await keyboard.press("Enter");
  await page.getByRole("heading", { name: "Overview", level: 1 }).waitFor();
  await page.getByRole("link", { name: "Open the Integration Library" }).waitFor();

  await tabTo(/^Integrations/);
  await keyboard.press("Enter");
  await page.getByRole("heading", { name: "Nothing is installed yet" }).waitFor();
  await tabTo(/^Integration Library/);
  await keyboard.press("Enter");
  await page.getByRole("heading", { name: "Confluent Cloud" }).waitFor();
  await tabTo(/^Streaming/);
  await keyboard.press("Space");
  await tabTo(/^Install Confluent Cloud/);
  await keyboard.press("Enter");
  await page.getByRole("dialog", { name: "Install Confluent Cloud" }).waitFor();

  await tabTo(/^Bootstrap servers/);
  await keyboard.type("pkc-abc123");
  await tabTo(/^Topic/);
  await keyboard.type("datafly-events");
  await tabTo(/^API key/);
  await keyboard.type("KEY");
  await tabTo(/^API secret/);
  await keyboard.type("SECRET");
  await keyboard.press("Enter");

  await page.getByText(/has no port/).waitFor();
  await until("the wrong field has the focus", async () => /^Bootstrap servers/.test(await focused()));
  const field = page.getByLabel("Bootstrap servers");
  await becomes(() => field.getAttribute("aria-invalid"), "true");
  const described = await field.getAttribute("aria-describedby");
  const words = await page.evaluate((ids) => ids.split(" ").map((id) => document.getElementById(id).innerText).join(" "), described);
  assert.match(words, /has no port/);
  assert.equal(world.integrations.length, 0);
  await keyboard.press("End");
  await keyboard.type(":9092");
  await keyboard.press("Enter");

  await page.getByRole("dialog", { name: "Confluent Cloud is installed" }).waitFor();
  await until("the offer of a test event has the focus", async () => /^Send test event/.test(await focused()));
  await keyboard.press("Enter");
  await page.locator(".test-line").getByText("delivered", { exact: true }).waitFor();
  await page.locator(".test-line").getByText("partition 2, offset 41").waitFor();
  const sent = world.calls.find(({ path }) => path.endsWith("/install") && world.integrations.length)?.body;
  assert.deepEqual(Object.keys(sent.config).sort(), ["bootstrap_servers", "sasl_mechanism", "sasl_password", "sasl_username", "security_protocol", "topic"]);

  await tabTo(/^See it in Live Events/);
  await keyboard.press("Enter");
  await page.getByRole("row", { name: /Test Event.*Confluent Cloud.*delivered.*partition 2, offset 41/ }).waitFor();
  await page.done();
});

test("the library filters by category and by words", async () => {
  const page = await signedIn("#/integrations/library");
  await page.getByRole("heading", { name: "Apache Kafka" }).waitFor();
  await page.getByRole("button", { name: "Streaming" }).click();
  await becomes(() => page.getByRole("button", { name: "Streaming" }).getAttribute("aria-pressed"), "true");
  await page.getByLabel("Search the library").fill("confluent");
  await page.getByRole("heading", { name: "Apache Kafka" }).waitFor({ state: "detached" });
  await page.getByRole("heading", { name: "Confluent Cloud" }).waitFor();
  await page.getByLabel("Search the library").fill("nothing like it");
  await page.getByRole("heading", { name: "Nothing fits" }).waitFor();
  await page.done();
});

test("exactly the documented fields are asked for; the advanced ones are folded, the secret is masked", async () => {
  const page = await signedIn("#/integrations/library");
  await page.getByRole("button", { name: "Install Confluent Cloud" }).click();
  const dialog = page.getByRole("dialog");
  const visible = await dialog.locator(".field:visible[data-key]").evaluateAll((all) => all.map((one) => one.dataset.key));
  assert.deepEqual(visible, ["bootstrap_servers", "topic", "security_protocol", "sasl_mechanism", "sasl_username", "sasl_password"]);
  const secret = dialog.getByRole("textbox", { name: "API secret" });
  await becomes(() => dialog.locator("#f-sasl_password").getAttribute("type"), "password");
  await dialog.getByRole("button", { name: "Show API secret" }).click();
  await becomes(() => secret.getAttribute("type"), "text");
  await dialog.getByText("Advanced").click();
  await dialog.getByLabel("Compression").waitFor();
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  assert.ok(await page.getByRole("button", { name: "Install Confluent Cloud" }).evaluate((button) => button === document.activeElement), "the focus was not given back");
  await page.done();
});

test("fields that only SASL needs come and go with the security protocol", async () => {
  const page = await signedIn("#/integrations/library");
  await page.getByRole("button", { name: "Install Apache Kafka" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("User name").waitFor();
  await dialog.getByLabel("Security protocol").selectOption("PLAINTEXT");
  await dialog.getByLabel("User name").waitFor({ state: "detached" });
  await dialog.getByLabel("Bootstrap servers").fill("127.0.0.1:9092");
  await dialog.getByLabel("Topic", { exact: true }).fill("t");
  await dialog.getByText("Advanced").click();
  await dialog.getByLabel("Consent purposes").fill("analytics, advertising");
  await dialog.getByLabel("Linger (ms)").fill("soon");
  await dialog.getByRole("button", { name: "Install Integration" }).click();
  await dialog.getByText(/not a whole number/).waitFor();
  await dialog.getByLabel("Linger (ms)").fill("50");
  await dialog.getByRole("button", { name: "Install Integration" }).click();
  await page.getByRole("dialog", { name: "Apache Kafka is installed" }).waitFor();
  const { body } = world.calls.filter(({ path }) => path.endsWith("/install")).at(-1);
  assert.deepEqual(body, {
    name: "Apache Kafka", variant: "default", delivery_mode: "server_side",
    config: { bootstrap_servers: "127.0.0.1:9092", topic: "t", security_protocol: "PLAINTEXT", consent: ["analytics", "advertising"], linger_ms: 50 },
  });
  await page.done();
});

test("a connection can be checked before installing, and says at which stage it fails and what to do", async () => {
  const page = await signedIn("#/integrations/library");
  await page.getByRole("button", { name: "Install Confluent Cloud" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Bootstrap servers").fill("pkc:9092");
  await dialog.getByLabel("Topic", { exact: true }).fill("t");
  await dialog.getByLabel("API key").fill("wrong");
  await dialog.getByRole("textbox", { name: "API secret" }).fill("s");
  await dialog.getByRole("button", { name: "Check connection" }).click();
  await dialog.getByRole("heading", { name: "The connection does not work yet" }).waitFor();
  const failed = dialog.locator(".stages li", { hasText: "SASL" });
  assert.match(await failed.innerText(), /failed[\s\S]*Authentication failed[\s\S]*Put the right key/);
  assert.equal(world.integrations.length, 0);
  await accessible(page, "check result");
  await dialog.getByLabel("API key").fill("right");
  await dialog.getByRole("button", { name: "Check connection" }).click();
  await dialog.getByRole("heading", { name: "The connection works" }).waitFor();
  await page.done();
});

test("a taken name is a fault of the name field", async () => {
  world.integrations.push(integration("int_1", "Taken"));
  const page = await signedIn("#/integrations/library");
  await page.getByRole("button", { name: "Install Confluent Cloud" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name", { exact: true }).fill("Taken");
  await dialog.getByLabel("Bootstrap servers").fill("pkc:9092");
  await dialog.getByLabel("Topic", { exact: true }).fill("t");
  await dialog.getByLabel("API key").fill("k");
  await dialog.getByRole("textbox", { name: "API secret" }).fill("s");
  await dialog.getByRole("button", { name: "Install Integration" }).click();
  await dialog.locator("#f-name-fault").getByText("exists already").waitFor();
  await page.done();
});

// ---- installed integrations

test("an integration can be paused, resumed, disabled after a warning, and enabled", async () => {
  const one = integration("int_1", "Main");
  world.integrations.push(one);
  const page = await signedIn("#/integrations");
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByRole("button", { name: "Resume" }).waitFor();
  assert.equal(one.paused, true);
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByRole("button", { name: "Disable" }).click();
  assert.equal(one.enabled, true);
  await page.getByRole("dialog").getByRole("button", { name: "Disable" }).click();
  await page.getByRole("button", { name: "Enable" }).click();
  await until("enabled again", () => one.enabled);
  await page.done();
});

test("editing sends the stored secret back masked, and only what was typed in its place", async () => {
  world.integrations.push(integration("int_1", "Main"));
  const page = await signedIn("#/integrations");
  await page.getByRole("button", { name: "Edit" }).click();
  const dialog = page.getByRole("dialog");
  await becomes(() => dialog.getByRole("textbox", { name: "API secret" }).inputValue(), "");
  await dialog.getByLabel("Topic", { exact: true }).fill("other");
  await dialog.getByRole("button", { name: "Save changes" }).click();
  await dialog.waitFor({ state: "hidden" });
  const patches = () => world.calls.filter(({ method }) => method === "PATCH");
  assert.equal(patches()[0].body.config.sasl_password, "***");
  assert.equal(patches()[0].body.config.topic, "other");
  await page.getByRole("button", { name: "Edit" }).click();
  await dialog.getByRole("textbox", { name: "API secret" }).fill("new one");
  await dialog.getByRole("button", { name: "Save changes" }).click();
  await dialog.waitFor({ state: "hidden" });
  assert.equal(patches()[1].body.config.sasl_password, "new one");
  await page.done();
});

test("removing asks for the number of events that are lost, and again when it changed meanwhile", async () => {
  const one = integration("int_1", "Main");
  one.books.pending = 3;
  one.books.buried = 2;
  world.integrations.push(one);
  const page = await signedIn("#/integrations");
  await page.getByRole("button", { name: "Remove" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("button", { name: "Remove integration" }).click();
  await dialog.getByText("Type 5 to confirm.").waitFor();
  one.books.pending = 4;
  await dialog.getByLabel(/to confirm/).fill("5");
  await dialog.getByRole("button", { name: "Remove integration" }).click();
  await dialog.getByText("In the meantime it became 6").waitFor();
  assert.equal(world.integrations.length, 1);
  await dialog.getByLabel(/to confirm/).fill("6");
  await dialog.getByRole("button", { name: "Remove integration" }).click();
  await page.getByRole("heading", { name: "Nothing is installed yet" }).waitFor();
  await page.done();
});

// ---- live events

test("an event's row goes from stored to delivered, and the stream can be paused, filtered and searched", async () => {
  world.integrations.push(integration("int_1", "Main"));
  world.seq = 50;
  const page = await signedIn("#/live");
  await until("the stream is open", () => world.streams.size === 1);
  publish(world, { seq: 7, status: "stored" });
  const row = page.getByRole("row", { name: /Receipt of event 7/ });
  await row.getByText("stored", { exact: true }).waitFor();
  publish(world, { seq: 7, integration: "int_1", integration_name: "Main", status: "delivered", partition: 5, offset: 1234, latency_ms: 9 });
  await row.getByText("partition 5, offset 1,234").waitFor();
  await becomes(() => page.getByRole("row", { name: /Receipt of event 7/ }).count(), 1);

  const pause = page.getByRole("button", { name: "Pause" });
  await becomes(() => pause.getAttribute("aria-pressed"), "false");
  await pause.click();
  await becomes(() => pause.getAttribute("aria-pressed"), "true");
  publish(world, { seq: 8, status: "stored" });
  await page.getByText("Paused. 1 event arrived since.").waitFor();
  assert.equal(await page.getByRole("row", { name: /Receipt of event 8/ }).count(), 0);
  await pause.click();
  await page.getByRole("row", { name: /Receipt of event 8/ }).waitFor();

  await page.getByRole("button", { name: "delivered" }).click();
  await page.getByRole("row", { name: /Receipt of event 8/ }).waitFor({ state: "detached" });
  await page.getByRole("row", { name: /Receipt of event 7.*delivered/ }).waitFor();

  await page.getByLabel("Sequence number").fill("8");
  await page.getByRole("button", { name: "Find event" }).click();
  await page.getByRole("dialog", { name: "Event 8" }).getByText("pending", { exact: true }).waitFor();
  await accessible(page, "receipt");
  await page.done();
});

test("the live table stays bounded and says what was left out", async () => {
  world.integrations.push(integration("int_1", "Main"));
  world.skipped = 312;
  const page = await signedIn("#/live");
  await page.getByText("312 events not shown").waitFor();
  await until("the stream is open", () => world.streams.size === 1);
  for (let seq = 1; seq <= 900; seq += 1) publish(world, { seq, status: "stored" });
  await page.getByRole("row", { name: /Receipt of event 900/ }).waitFor();
  await becomes(() => page.locator("tbody tr").count(), 200);
  await page.done();
});

test("one stream watches from sign-in to sign-out, whatever the page, and Live Events shows what it missed", async () => {
  world.integrations.push(integration("int_1", "Main"));
  const page = await signedIn();
  await until("one stream", () => world.streams.size === 1);
  publish(world, { seq: 7, integration: "int_1", integration_name: "Main", status: "delivered", partition: 0, offset: 3, latency_ms: 9 });
  await visit(page, "#/live", "Live Events");
  await page.getByRole("row", { name: /Receipt of event 7.*partition 0, offset 3/ }).waitFor();
  for (const [hash, heading] of [["#/overview", "Overview"], ["#/live", "Live Events"], ["#/integrations", "Integrations"]]) {
    await visit(page, hash, heading);
    await until("one stream again", () => world.streams.size === 1);
  }
  await page.getByRole("button", { name: "Sign out" }).click();
  await until("no stream", () => world.streams.size === 0);
  await page.done();
});

// ---- dead letters

test("dead letters are grouped by cause, paged, inspected and replayed", async () => {
  busyWorld();
  const page = await signedIn("#/dead-letters");
  const group = page.locator(".group", { hasText: "Too large or refused" });
  assert.match(await group.innerText(), /24/);
  await page.getByText("1 to 25").waitFor();
  await page.getByRole("button", { name: "Next" }).click();
  await page.getByText("26 to 30").waitFor();
  await becomes(() => page.locator("tbody tr").count(), 5);
  await page.getByRole("button", { name: "Previous" }).click();
  await page.getByText("1 to 25").waitFor();

  await page.getByRole("link", { name: "Inspect event 101" }).click();
  await page.getByRole("heading", { name: "Event 101" }).waitFor();
  await page.getByText("Kafka did not take this event, tried once: MessageSizeTooLarge.").waitFor();
  await page.getByText("raise the topic's max.message.bytes").waitFor();
  const shown = page.getByRole("region", { name: "Contents of the event" });
  assert.match(await shown.innerText(), /"event": "Order Completed",\n/);
  await page.getByRole("button", { name: "As it came" }).click();
  await becomes(() => shown.innerText(), world.letters.get("int_good").find(({ seq }) => seq === 101).event);

  await page.getByRole("button", { name: "Replay" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Replay" }).click();
  await page.getByRole("heading", { name: "Dead letters", level: 1 }).waitFor();
  await until("replayed", () => world.letters.get("int_good").length === 29);
  await page.getByRole("link", { name: "Inspect event 101" }).waitFor({ state: "detached" });
  await page.done();
});

test("discarding needs the typed count", async () => {
  busyWorld();
  const page = await signedIn("#/dead-letters");
  await page.getByRole("button", { name: "Discard all: Too large or refused" }).click();
  const dialog = page.getByRole("dialog", { name: "Discard 24 dead letters?" });
  await dialog.getByRole("button", { name: "Discard for good" }).click();
  await dialog.getByText("Type 24 to confirm.").waitFor();
  await dialog.getByLabel(/to confirm/).fill("23");
  await dialog.getByRole("button", { name: "Discard for good" }).click();
  assert.equal(world.letters.get("int_good").length, 30);
  await dialog.getByLabel(/to confirm/).fill("24");
  await dialog.getByRole("button", { name: "Discard for good" }).click();
  await dialog.waitFor({ state: "hidden" });
  assert.equal(world.letters.get("int_good").length, 6);
  await page.locator(".group", { hasText: "Too large or refused" }).waitFor({ state: "detached" });
  await page.done();
});

test("chosen dead letters alone are replayed", async () => {
  busyWorld();
  const page = await signedIn("#/dead-letters");
  await page.getByLabel("Choose event 101").check();
  await page.getByLabel("Choose event 103").check();
  await page.getByRole("button", { name: "Replay chosen (2)" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Replay" }).click();
  await until("two are gone", () => world.letters.get("int_good").length === 28);
  assert.deepEqual(world.calls.find(({ path }) => path.endsWith("/replay")).body, { seq: [101, 103] });
  await page.done();
});

// ---- hostile contents

test("markup in names, failures and events stays text on every page", async () => {
  const one = integration("int_1", kHostile, { state: "halted", failure: { ...kFailure, problem: kHostile, seen: kHostile, causes: [kHostile], remedy: kHostile, since: new Date().toISOString() } });
  one.config.topic = kHostile;
  one.config.bootstrap_servers = kHostile;
  one.consent_categories = [kHostile];
  world.integrations.push(one);
  world.seq = 9;
  world.notes = [kHostile];
  world.letters.set("int_1", [letter(5, { name: kHostile, key: kHostile, seen: kHostile, event: `{"event":${JSON.stringify(kHostile)}}` })]);
  one.books.buried = 1;
  publish(world, { seq: 5, name: kHostile, type: kHostile, integration: "int_1", integration_name: kHostile, status: "buried", code: kHostile });
  world.places = new Map([[5, { integration: "int_1", name: kHostile, status: "buried", partition: null, offset: null, code: kHostile }]]);
  const page = await signedIn();
  await page.getByText(kHostile).locator("visible=true").first().waitFor();
  for (const [hash, heading] of [["#/live", "Live Events"], ["#/integrations", "Integrations"], ["#/dead-letters", "Dead letters"], ["#/dead-letters/int_1/5", "Event 5"]]) {
    await visit(page, hash, heading);
    await page.getByText(kHostile.slice(0, 40)).locator("visible=true").first().waitFor();
    assert.equal(await page.locator("img:not([src='mark.svg']), main script").count(), 0, hash);
  }
  await visit(page, "#/live", "Live Events");
  await page.getByRole("button", { name: "Receipt of event 5" }).click();
  await page.getByRole("dialog").getByText(kHostile).first().waitFor();
  assert.equal(await page.evaluate(() => window.hurt), undefined);
  await page.done();
});

test("hostile addresses end on a page, not in an error", async () => {
  const page = await signedIn();
  for (const hash of ["#/constructor", "#/__proto__/x", "#/%E0%A4%A", "#/dead-letters/<img src=x onerror=alert(1)>/1", "#/dead-letters/nobody/7", "#//////"]) {
    await page.evaluate((to) => (location.hash = to), hash);
    await page.locator("main h1").waitFor();
  }
  await page.done();
});

test("no string can become markup: the browser itself refuses", async () => {
  const page = await signedIn();
  const refused = await page.evaluate(() => {
    try {
      document.body.insertAdjacentHTML("beforeend", "<b>x</b>");
      return false;
    } catch {
      return true;
    }
  });
  assert.ok(refused);
});

// ---- everybody

const kPages = [["#/overview", "Overview"], ["#/live", "Live Events"], ["#/integrations", "Integrations"], ["#/integrations/library", "Integrations"], ["#/dead-letters", "Dead letters"], ["#/dead-letters/int_good/101", "Event 101"]];

const kModes = [["light", {}], ["dark", { dark: true }], ["on a phone", { viewport: kPhone }]];

for (const [mode, options] of kModes) {
  test(`no page has an accessibility fault (${mode})`, async () => {
    busyWorld();
    const page = await open(browser, fake.url, options);
    await page.getByLabel("Token").waitFor();
    await accessible(page, `sign-in ${mode}`);
    await signIn(page, fake.token);
    for (const [hash, heading] of kPages) {
      await visit(page, hash, heading);
      await page.locator(".loading").waitFor({ state: "detached" });
      if (hash === "#/live") await page.locator("tbody tr").first().waitFor();
      if (hash === "#/overview") await page.getByRole("img", { name: /^Events per second over the last/ }).waitFor();
      await accessible(page, `${hash} ${mode}`);
    }
    await visit(page, "#/integrations/library", "Integrations");
    await page.getByRole("button", { name: "Install Confluent Cloud" }).click();
    await page.getByRole("button", { name: "Install Integration" }).click();
    await page.locator("[aria-invalid=true]").first().waitFor();
    await page.getByRole("dialog").getByText("Advanced").click();
    await accessible(page, `install form ${mode}`);
    await page.keyboard.press("Escape");
    await visit(page, "#/dead-letters", "Dead letters");
    await page.getByRole("button", { name: "Discard all: Too large or refused" }).click();
    await accessible(page, `discard ${mode}`);
    await page.done();
  });
}

for (const [mode, options] of kModes.slice(0, 2)) {
  test(`no empty page has an accessibility fault, and each says what to do first (${mode})`, async () => {
    const page = await signedIn("", options);
    for (const [hash, heading] of kPages.slice(0, 5)) {
      await visit(page, hash, heading);
      await page.locator(".loading").waitFor({ state: "detached" });
      if (hash !== "#/integrations/library") await page.getByRole("link", { name: "Open the Integration Library" }).waitFor();
      await accessible(page, `${hash} empty ${mode}`);
    }
    await page.done();
  });
}

test("nothing is cut off or scrolls sideways on the smallest screen", async () => {
  busyWorld();
  const page = await signedIn("", { viewport: kSmallest });
  for (const [hash, heading] of kPages) {
    await visit(page, hash, heading);
    await page.locator(".loading").waitFor({ state: "detached" });
    await accessible(page, `${hash} at 320 px`);
  }
  await page.done();
});

test("the summary is read out when it says something new, not when a number moves", async () => {
  world.integrations.push(integration("int_1", "Main"));
  world.sentence = "All is well: 1 integration delivers, 5 events wait, the oldest for 3 s.";
  const page = await signedIn();
  const said = () => page.locator("p[aria-live=polite]").first().innerText();
  await until("the first sentence", async () => (await said()).includes("5 events"));
  world.sentence = "All is well: 1 integration delivers, 9,001 events wait, the oldest for 12 min.";
  await page.locator(".summary").getByText("9,001 events").waitFor();
  assert.match(await said(), /5 events/);
  world.sentence = '"Main" has not delivered for 4 s: Connection timeout.';
  world.level = "attention";
  await until("the new sentence", async () => (await said()).includes("has not delivered"));
  await page.done();
});

test("each finding is told once, the most urgent as the headline", async () => {
  busyWorld();
  const page = await signedIn();
  const summary = page.getByRole("region", { name: "Status" });
  await summary.getByText('"Warehouse" has not delivered for 3 min', { exact: true }).waitFor();
  assert.deepEqual(await summary.getByRole("listitem").allInnerTexts(), ['"Staging" is paused; 0 events wait.']);
  assert.equal((await summary.innerText()).split("has not delivered").length - 1, 1);
  const shown = await page.locator("main").innerText();
  for (const told of [kFailure.seen, kFailure.problem, "Put the right key"]) assert.equal(shown.split(told).length - 1, 1, told);
  await becomes(() => page.title(), '"Warehouse" has not delivered for 3 min · Overview · signal-agent');
  await page.done();
});

test("the appearance can be chosen and is remembered", async () => {
  const page = await signedIn("", { viewport: kDesktop });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.getByLabel("Appearance").selectOption("dark");
  const dark = await ground();
  assert.notEqual(light, dark);
  await page.reload();
  await page.getByRole("heading", { name: "Overview", level: 1 }).waitFor();
  await becomes(() => ground(), dark);
  await page.done();
});

test("the whole console is below 60 KB compressed, and every import is an embedded file", () => {
  const find = (name) => {
    for (const folder of kFolders) {
      try {
        return readFileSync(join(folder, name));
      } catch {
        // ignored because the next folder may have it
      }
    }
    return assert.fail(`${name} is in none of ${kFolders}`);
  };
  const lines = String(find("assets.txt")).split("\n").filter((line) => line.startsWith("/")).map((line) => line.split(/\s+/));
  assert.ok(lines.length > 10);
  const urls = new Set(lines.map(([url]) => url));
  let total = 0;
  for (const [url, name] of lines) {
    const bytes = find(name);
    total += gzipSync(bytes, { level: 9 }).length;
    if (!name.endsWith(".js")) continue;
    for (const [, wanted] of String(bytes).matchAll(/(?:from|import)\s*"(\.[^"]+)"/g)) {
      assert.ok(urls.has(normalize(join(dirname(url), wanted))), `${name} imports ${wanted}, which is not embedded`);
    }
    if (!name.startsWith("vendor/")) assert.doesNotMatch(String(bytes), /innerHTML|unsafe|eval\(|new Function|document\.write/, name);
  }
  assert.ok(total < 60 * 1024, `${total} bytes`);
});

test("the catalog's website is only a link when it is https", async () => {
  const vendor = kCatalog[0];
  const { website } = vendor;
  vendor.website = "javascript:window.hurt=1";
  try {
    const page = await signedIn("#/integrations/library");
    await page.getByRole("heading", { name: vendor.name }).waitFor();
    assert.equal(await page.locator("a[href^='javascript']").count(), 0);
    await page.done();
  } finally {
    vendor.website = website;
  }
});
