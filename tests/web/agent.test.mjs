// The console of the built agent, against a real broker: the vendor's Quick Setup and Testing, and
// a dead letter from its cause to its replay. The broker itself is asked what it holds.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync, createWriteStream } from "node:fs";
import { createInterface } from "node:readline";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { becomes, accessible, launch, open, signIn, until, visit } from "./support.mjs";

const kTopic = "datafly-events";
// What asks the management API: a session has 100 requests a minute, and the page needs some itself.
const kSeldom = { every: 2000 };
const kHostileName = `"><img src=x onerror="window.hurt=1">`;

const folder = mkdtempSync(join(process.env.TMPDIR ?? tmpdir(), "signal-agent-web-"));
let browser;
let broker;
let agent;

/// One line of JSON for each request, answered in order.
async function startBroker() {
  const child = spawn("python3", [process.env.KAFKA_BROKER, "serve", "--state", join(folder, "broker"), "--topic", `${kTopic}:3`], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error("the broker ended");
    return JSON.parse(value);
  };
  const addresses = await next();
  return {
    ...addresses,
    async ask(request) {
      child.stdin.write(`${JSON.stringify(request)}\n`);
      const answer = await next();
      if (answer.error) throw new Error(answer.error);
      return answer.ok;
    },
    async count() {
      return Object.values(await this.ask({ do: "end_offsets", topic: kTopic })).reduce((sum, n) => sum + n, 0);
    },
    stop: () => new Promise((resolve) => {
      child.on("exit", resolve);
      child.kill("SIGTERM");
    }),
  };
}

async function startAgent() {
  const config = join(folder, "agent.toml");
  const state = join(folder, "state");
  const logFile = join(folder, "agent.log");
  writeFileSync(config, `state_dir = "${state}"\nintake.listen = ["127.0.0.1:0"]\nadmin.listen = ["127.0.0.1:0"]\nspool.min_free_bytes = "16MiB"\n`);
  const log = createWriteStream(logFile);
  await new Promise((resolve) => log.on("open", resolve));
  const child = spawn(process.env.SIGNAL_AGENT, ["run", "--config", config], { stdio: ["ignore", log, log] });
  const found = () => {
    if (child.exitCode !== null) throw new Error(`the agent ended:\n${readFileSync(logFile)}`);
    const text = String(readFileSync(logFile));
    const port = (listener) => text.split("\n").find((line) => line.includes("msg=listening") && line.includes(`listener=${listener}`))?.match(/127\.0\.0\.1:(\d+)/)?.[1];
    return text.includes("msg=ready") && port("admin") && port("intake") ? { admin: port("admin"), intake: port("intake") } : null;
  };
  const ports = await until("the agent is ready", found);
  return {
    url: `http://127.0.0.1:${ports.admin}`,
    token: String(readFileSync(join(state, "admin.token"))).trim(),
    async post(event) {
      const response = await fetch(`http://127.0.0.1:${ports.intake}/v1/events`, { method: "POST", body: JSON.stringify(event) });
      assert.equal(response.status, 200, await response.clone().text());
      return (await response.json()).first_seq;
    },
    stop: () => new Promise((resolve) => {
      child.on("exit", resolve);
      child.kill("SIGTERM");
    }),
  };
}

before(async () => {
  [browser, broker, agent] = await Promise.all([launch(), startBroker(), startAgent()]);
});
after(async () => {
  await Promise.all([browser?.close(), agent?.stop(), broker?.stop()]);
  rmSync(folder, { recursive: true, force: true });
});

test("quick setup, test event, dead letter and replay, as the vendor's document tells them", async () => {
  const page = await open(browser, agent.url);
  const policy = (await page.request.get(agent.url)).headers()["content-security-policy"];
  assert.match(policy, /default-src 'none'/);
  assert.match(policy, /script-src 'self'(;|$)/);
  assert.doesNotMatch(policy, /unsafe/);
  await accessible(page, "sign-in");
  await signIn(page, agent.token);
  const [cookie] = await page.context().cookies();
  assert.ok(cookie.httpOnly && cookie.sameSite === "Strict", JSON.stringify(cookie));
  await page.getByText("No integration is installed").first().waitFor();
  await accessible(page, "overview before the first integration");

  // Quick Setup: Integrations, Integration Library, Streaming, Install, fields, Install Integration.
  await page.getByRole("link", { name: "Integrations" }).click();
  await page.getByRole("link", { name: "Integration Library" }).first().click();
  await page.getByRole("button", { name: "Streaming" }).click();
  await page.getByRole("button", { name: "Install Confluent Cloud" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Topic", { exact: true }).fill(kTopic);
  await dialog.getByLabel("API key").fill("agent");
  await dialog.getByRole("textbox", { name: "API secret" }).fill(broker.users.agent);
  await dialog.getByText("Advanced").click();
  await dialog.getByLabel("CA certificate file").fill(broker.ca_file);
  const servers = dialog.getByLabel("Bootstrap servers");
  await servers.fill("127.0.0.1:notaport");
  await dialog.getByRole("button", { name: "Install Integration" }).click();
  await until("the wrong field says so", async () => (await servers.getAttribute("aria-invalid")) === "true");
  assert.notEqual((await dialog.locator("#f-bootstrap_servers-fault").innerText()).trim(), "");
  await accessible(page, "install form with a fault");
  await servers.fill(broker.sasl_ssl);
  await dialog.getByRole("button", { name: "Check connection" }).click();
  await dialog.getByRole("heading", { name: "The connection works" }).waitFor({ timeout: 60_000 });
  await dialog.getByRole("button", { name: "Install Integration" }).click();

  // Testing: trigger a test event, see it delivered in Live Events.
  const offer = page.getByRole("dialog", { name: "Confluent Cloud is installed" });
  await offer.getByRole("button", { name: "Send test event" }).click();
  const line = page.locator(".test-line");
  await line.getByText("delivered", { exact: true }).waitFor({ timeout: 60_000 });
  const [, partition, offset] = /partition (\d+), offset ([\d,]+)/.exec(await line.innerText());
  assert.equal(await broker.count(), 1);
  const ends = await broker.ask({ do: "end_offsets", topic: kTopic });
  assert.equal(ends[partition], Number(offset) + 1, "the broker has it where the console says");
  await accessible(page, "integrations");
  await line.getByRole("link", { name: "See it in Live Events" }).click();
  await page.getByRole("row", { name: new RegExp(`Confluent Cloud.*delivered.*partition ${partition}, offset ${offset}`) }).waitFor();

  // Events of an application, with a hostile name.
  const seq = await agent.post({ type: "track", event: kHostileName, userId: "u-1" });
  const row = page.getByRole("row", { name: new RegExp(`Receipt of event ${seq}`) });
  await row.getByText("delivered", { exact: true }).waitFor({ timeout: 30_000 });
  await row.getByText(kHostileName).waitFor();
  await accessible(page, "live events");
  await row.getByRole("button", { name: `Receipt of event ${seq}` }).click();
  await page.getByRole("dialog", { name: `Event ${seq}` }).getByText("delivered", { exact: true }).waitFor();
  await page.keyboard.press("Escape");

  // A dead letter: an event above the topic's limit. Its neighbours go on.
  await broker.ask({ do: "configure_topic", topic: kTopic, config: { "max.message.bytes": "20000" } });
  const before = await broker.count();
  const large = { type: "track", event: kHostileName, userId: "u-2", properties: { note: randomBytes(75_000).toString("base64") } };  // does not compress
  const deadSeq = await agent.post(large);
  await agent.post({ type: "track", event: "Small", userId: "u-2" });
  await page.getByRole("row", { name: new RegExp(`Receipt of event ${deadSeq}.*buried`) }).waitFor({ timeout: 60_000 });
  await until("its neighbour is stored", async () => (await broker.count()) === before + 1);
  await visit(page, "#/dead-letters", "Dead letters");
  await page.locator(".group", { hasText: "MESSAGE_TOO_LARGE" }).waitFor();
  await accessible(page, "dead letters");
  await page.getByRole("link", { name: `Inspect event ${deadSeq}` }).click();
  await page.getByRole("heading", { name: `Event ${deadSeq}` }).waitFor();
  await page.getByText("Kafka did not take this event").waitFor();
  await page.getByText("max.message.bytes").first().waitFor();
  await page.getByRole("button", { name: "As it came" }).click();
  await page.getByRole("button", { name: "Show all of it" }).click();
  await becomes(() => page.getByRole("region", { name: "Contents of the event" }).innerText(), JSON.stringify(large));
  await accessible(page, "one dead letter");

  // The cause is cured; replay.
  await broker.ask({ do: "configure_topic", topic: kTopic, config: { "max.message.bytes": null } });
  await page.getByRole("button", { name: "Replay" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Replay" }).click();
  await until("the broker has the replayed event", async () => (await broker.count()) === before + 2);
  await page.getByRole("heading", { name: "Dead letters", level: 1 }).waitFor();
  await until("no dead letter is left", async () => {
    await visit(page, "#/overview", "Overview");
    await visit(page, "#/dead-letters", "Dead letters");
    await page.locator(".loading").waitFor({ state: "detached" });
    return page.getByRole("heading", { name: "No dead letters" }).isVisible();
  }, kSeldom);
  await visit(page, "#/overview", "Overview");
  await page.getByText("All is well").first().waitFor();
  await page.getByRole("img", { name: /^Events per second over the last/ }).waitFor();
  await accessible(page, "overview");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "overview in dark");
  assert.equal(await page.evaluate(() => window.hurt), undefined);
  await page.done();
});

test("a wrong key is named with its remedy, and editing the secret repairs delivery without a restart", async () => {
  const page = await open(browser, agent.url, { dark: true });
  await signIn(page, agent.token);
  await visit(page, "#/integrations/library", "Integrations");
  await page.getByRole("button", { name: "Install Confluent Cloud" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name", { exact: true }).fill(kHostileName);
  await dialog.getByLabel("Bootstrap servers").fill(broker.sasl_ssl);
  await dialog.getByLabel("Topic", { exact: true }).fill(kTopic);
  await dialog.getByLabel("API key").fill("agent");
  await dialog.getByRole("textbox", { name: "API secret" }).fill("wrong");
  await dialog.getByText("Advanced").click();
  await dialog.getByLabel("CA certificate file").fill(broker.ca_file);
  await dialog.getByRole("button", { name: "Check connection" }).click();
  await dialog.getByRole("heading", { name: "The connection does not work yet" }).waitFor({ timeout: 60_000 });
  assert.match(await dialog.locator(".stages li", { hasText: "SASL" }).innerText(), /failed/);
  await dialog.getByRole("button", { name: "Install Integration" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Send test event" }).click();

  const card = page.getByRole("article", { name: kHostileName });
  await card.getByText("Authentication failure").first().waitFor({ timeout: 90_000 });
  await card.getByText("Likely causes").waitFor();
  await accessible(page, "a failing integration");
  const edit = card.getByRole("button", { name: "Edit" });
  await until("the card is free again", () => edit.isEnabled());
  await edit.click();
  await page.getByRole("dialog").getByRole("textbox", { name: "API secret" }).fill(broker.users.agent);
  await page.getByRole("dialog").getByRole("button", { name: "Save changes" }).click();
  await card.getByText("Delivering").waitFor({ timeout: 60_000 });
  await until("the test event is acknowledged", async () => {
    const answer = await page.evaluate(() => fetch("/v1/admin/integrations").then((response) => response.json()));
    return answer.data.find(({ name }) => name.includes("onerror")).books.acked === 1;
  }, kSeldom);

  await card.getByRole("button", { name: "Remove" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Remove integration" }).click();
  await card.waitFor({ state: "detached" });
  assert.equal(await page.evaluate(() => window.hurt), undefined);
  await page.done();
});
