// A small agent that never was: the management API as the console sees it, with states that are
// hard to bring about at once in a real one (every failure, hostile names, long lists). Serves the
// console's real files under the policy of the real agent. Only loopback.
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { extname, join } from "node:path";

const kToken = "fake-token";
const kPolicy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; manifest-src 'self'; " +
  "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types lit-html";
const kTypes = { ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml" };

const field = (key, label, more = {}) => ({
  key, label, type: "string", required: false, advanced: false, placeholder: "", help_text: "", options: [], default: null, required_if: null, ...more,
});
const kSasl = { required_if: { field: "security_protocol", prefix: "SASL_" } };
const kAdvanced = [
  field("ssl_ca_file", "CA certificate file", { help_text: "PEM file with the certificates that may sign the brokers'." }),
  field("compression", "Compression", { type: "select", options: ["none", "lz4", "zstd"], help_text: "How batches are compressed." }),
  field("linger_ms", "Linger (ms)", { type: "integer", help_text: "How long a batch waits for more events." }),
  field("consent", "Consent purposes", { type: "string_list", placeholder: "analytics, advertising", help_text: "Publish only events that grant every purpose named here in `context.consent`." }),
].map((one) => ({ ...one, advanced: true }));
const kVariants = [{ key: "default", name: "Default", description: "Forwards every event as it came.", default_config: {} }];

export const kCatalog = [
  {
    key: "apache_kafka", name: "Apache Kafka", description: "Publishes first-party events to topics of any Apache Kafka cluster, with or without TLS and SASL.",
    category: "streaming", status: "ga", website: "https://kafka.apache.org/", variants: kVariants,
    config_fields: [
      field("bootstrap_servers", "Bootstrap servers", { required: true, placeholder: "broker-1.example.com:9092" }),
      field("topic", "Topic", { required: true }),
      field("security_protocol", "Security protocol", { type: "select", required: true, options: ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], default: "SASL_SSL" }),
      field("sasl_mechanism", "SASL mechanism", { type: "select", options: ["PLAIN", "SCRAM-SHA-256"], ...kSasl }),
      field("sasl_username", "User name", kSasl),
      field("sasl_password", "Password", { type: "secret", ...kSasl }),
      ...kAdvanced,
    ],
  },
  {
    key: "confluent_cloud", name: "Confluent Cloud", description: "Publishes first-party events to Confluent Cloud topics over the Kafka wire protocol with SASL/PLAIN authentication.",
    category: "streaming", status: "ga", website: "https://www.confluent.io/confluent-cloud/", variants: kVariants,
    config_fields: [
      field("bootstrap_servers", "Bootstrap servers", { required: true, placeholder: "pkc-abc123.us-east-1.aws.confluent.cloud:9092", help_text: "The Confluent Cloud bootstrap server address, from the cluster settings." }),
      field("topic", "Topic", { required: true, placeholder: "datafly-events", help_text: "The Kafka topic to produce messages to. It must exist." }),
      field("security_protocol", "Security protocol", { type: "select", required: true, options: ["SASL_SSL"], default: "SASL_SSL", help_text: "Set to SASL_SSL for Confluent Cloud." }),
      field("sasl_mechanism", "SASL mechanism", { type: "select", required: true, options: ["PLAIN"], default: "PLAIN", help_text: "Set to PLAIN." }),
      field("sasl_username", "API key", { required: true, help_text: "The Confluent Cloud API key." }),
      field("sasl_password", "API secret", { type: "secret", required: true, help_text: "The Confluent Cloud API secret." }),
      ...kAdvanced,
    ],
  },
];

export const kFailure = {
  code: "AUTHENTICATION_FAILED", class: "authentication", problem: "Authentication failure",
  seen: "sasl_ssl://pkc-abc123.us-east-1.aws.confluent.cloud:9092/bootstrap: SASL authentication error: Authentication failed",
  causes: ["The API key (sasl_username) or its secret (sasl_password) is wrong.", "The key belongs to another cluster."],
  remedy: "Put the right key and secret in the integration; it takes effect without a restart. `signal-agent check --live` follows the path stage by stage.",
};

export function integration(id, name, more = {}) {
  return {
    id, type: "confluent_cloud", name, variant: "default", delivery_mode: "server_side", enabled: true, paused: false, orphaned: false, origin: "api", read_only: false,
    config: { bootstrap_servers: "pkc-abc123.us-east-1.aws.confluent.cloud:9092", topic: "datafly-events", security_protocol: "SASL_SSL", sasl_mechanism: "PLAIN", sasl_username: "KEY", sasl_password: "***" },
    consent_categories: [], created_at: new Date().toISOString(), updated_at: new Date().toISOString(), state: "running", failure: null,
    books: { stored: 0, acked: 0, filtered: 0, discarded: 0, damaged: 0, buried: 0, pending: 0, balance_difference: 0 },
    delivery: {
      in_flight_events: 0, in_flight_bytes: 0, window_events: 10000, window_bytes: 16777216, sent: 0, acked: 0, acked_bytes: 0, late: 0, failed: {}, buried: {}, rebuilds: {},
      last_delivered_at: null, brokers_up: 3, latency_ms: { count: 0, p50: 0, p99: 0 },
    },
    position: null, dead_letter_bytes: 0, oldest_pending_at: null, ...more,
  };
}

export function letter(seq, more = {}) {
  const event = more.event ?? JSON.stringify({ type: "track", event: "Order Completed", userId: `u-${seq}`, properties: { total: 12.5, note: "x".repeat(40) } });
  return {
    seq, reason: "size", code: "MESSAGE_TOO_LARGE", problem: "MessageSizeTooLarge", seen: "Broker: Message size too large",
    causes: ["The event is larger than the topic accepts (max.message.bytes, often 1 MB)."],
    remedy: "Make the event smaller at its source, or raise the topic's max.message.bytes and replay it from the dead letters.", attempts: 1,
    first_failure_at: new Date(Date.now() - 90_000).toISOString(), last_failure_at: new Date(Date.now() - 90_000).toISOString(), accepted_at: new Date(Date.now() - 95_000).toISOString(),
    self_healing: false, replaying: false, key: `u-${seq}`, type: "track", name: "Order Completed", size_bytes: event.length, event, ...more,
  };
}

/// A world: what the fake agent knows. Tests change it while it runs.
export function emptyWorld() {
  return { level: null, sentence: null, notes: [], integrations: [], letters: new Map(), seq: 0, received: 0, sent: 0, live: [], liveId: 0, sessions: new Set(), calls: [], streams: new Set() };
}

export function publish(world, event) {
  const full = { id: ++world.liveId, at: new Date().toISOString(), integration: null, integration_name: null, partition: null, offset: null, latency_ms: null, type: "track", name: "Signed Up", code: null, ...event };
  world.live.push(full);
  for (const stream of world.streams) stream(full);
}

function statusOf(world) {
  const sum = (name) => world.integrations.reduce((total, one) => total + one.books[name], 0);
  const failing = world.integrations.find((one) => one.failure);
  const none = world.integrations.length === 0;
  const notes = [...world.notes];
  if (failing) notes.unshift(`"${failing.name}" has not delivered for 3 min: ${failing.failure.problem} (${failing.failure.code}): ${failing.failure.seen}. ${failing.failure.remedy}`);
  if (none) notes.unshift("No integration is installed: events are kept, nothing is delivered. Install one: signal-agent integrations install");
  const level = world.level ?? (failing ? "trouble" : notes.length ? "attention" : "ok");
  return {
    level,
    sentence: world.sentence ?? (notes.length
      ? `${level === "trouble" ? "Not all right" : "Needs a look"}: ${notes[0]}${notes.length > 1 ? ` (and ${notes.length - 1} more)` : ""}`
      : `All is well: ${world.integrations.length} integrations deliver, nothing waits.`),
    notes, version: "0.1.0", now: new Date().toISOString(), started_at: new Date(Date.now() - 7_260_000).toISOString(), uptime_seconds: 7260, stopping: false, ready: true, not_ready: null,
    path: { received: world.received, stored: world.seq, sent: world.sent, acked: sum("acked"), pending: sum("pending"), buried: sum("buried"), filtered: sum("filtered"), discarded: sum("discarded") },
    intake: { received_events: world.received, accepted_events: world.received, duplicate_events: 14, received_bytes: 981 * world.received, rejected: { INVALID_EVENT: 3 }, refused: {}, connections: 12, requests: world.received },
    spool: {
      state: "open", error: null, id: "spool-1", intake: "open", intake_reason: null, first_seq: 1, last_seq: world.seq, logical_bytes: 913_000_000, max_bytes: 10737418240, disk_bytes: 954_000_000,
      disk_free_bytes: 81_000_000_000, min_free_bytes: 1073741824, events_stored: world.seq, dropped: 0, duplicates: 14, recovered_missing: 0, commits: 812, commit_ms: { p50: 1.9, p99: 7.2 },
    },
    integrations: world.integrations, reload: { at: null, error: null },
  };
}

function faultsOf(vendor, { name, config = {} }, full) {
  const fields = [];
  if (full && !name) fields.push({ field: "name", message: "a name is required" });
  for (const one of vendor.config_fields) {
    const conditional = one.required_if && String(config[one.required_if.field] ?? "").startsWith(one.required_if.prefix);
    if ((one.required || conditional) && !config[one.key]) fields.push({ field: `config.${one.key}`, message: "is required" });
  }
  const servers = config.bootstrap_servers;
  if (servers && !/:\d+$/.test(servers)) fields.push({ field: "config.bootstrap_servers", message: `"${servers}" has no port; write host:port, for example ${servers}:9092` });
  if (config.linger_ms !== undefined && config.linger_ms !== null && !Number.isInteger(config.linger_ms)) fields.push({ field: "config.linger_ms", message: `"${config.linger_ms}" is not a whole number` });
  return fields;
}

const kStages = ["dns", "tcp", "tls", "sasl", "topic", "write", "size", "brokers"];
function checkOf(config, name = null) {
  const bad = /wrong/.test(config.sasl_username ?? "") ? 3 : kStages.length;
  return {
    integration: name, passed: bad === kStages.length,
    stages: kStages.map((stage, i) => ({
      stage, state: i < bad ? "passed" : i === bad ? "failed" : "skipped",
      detail: i < bad ? `${stage} answers` : i === bad ? "SASL authentication error: Authentication failed" : "not reached",
      remedy: i === bad ? "Put the right key and secret in the integration." : "",
    })),
  };
}

export async function startFake(world, folders) {
  const refuse = (response, status, code, message, more = {}) => {
    response.writeHead(status, { "Content-Type": "application/json" });
    response.end(JSON.stringify({ error: { code, message, ...more } }));
  };
  const answer = (response, body, status = 200) => {
    response.writeHead(status, { "Content-Type": "application/json" });
    response.end(body === undefined ? "" : JSON.stringify(body));
  };

  function file(path, response) {
    const name = path === "/" ? "index.html" : path.slice(1);
    for (const folder of folders) {
      try {
        const body = readFileSync(join(folder, name));
        response.writeHead(200, { "Content-Type": kTypes[extname(name)], "Content-Security-Policy": kPolicy, "X-Content-Type-Options": "nosniff" });
        return response.end(body);
      } catch {
        // ignored because the next folder may have it
      }
    }
    refuse(response, 404, "NOT_FOUND", "no such path");
  }

  function stream(url, request, response) {
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    const wanted = url.searchParams.get("integration");
    const statuses = url.searchParams.get("status")?.split(",");
    const send = (event) => {
      if (statuses && !statuses.includes(event.status)) return;
      if (wanted && event.integration && event.integration !== wanted) return;
      response.write(`id: ${event.id}\ndata: ${JSON.stringify(event)}\n\n`);
    };
    const last = Number(request.headers["last-event-id"] ?? url.searchParams.get("last_event_id") ?? -1);
    const recent = Number(url.searchParams.get("recent") ?? 0);
    response.write(": here\n\n");
    for (const event of last >= 0 ? world.live.filter((one) => one.id > last) : recent ? world.live.slice(-recent) : []) send(event);
    if (world.skipped) response.write(`event: skipped\ndata: ${JSON.stringify({ skipped: world.skipped })}\n\n`);
    world.streams.add(send);
    response.on("close", () => world.streams.delete(send));
  }

  function lettersOf(one) {
    if (!world.letters.has(one.id)) world.letters.set(one.id, []);
    return world.letters.get(one.id);
  }

  function select(all, selection) {
    if (selection.seq) return all.filter((entry) => selection.seq.includes(entry.seq));
    if (selection.reason) return all.filter((entry) => entry.reason === selection.reason);
    return selection.all ? all : [];
  }

  function deliverTest(one) {
    const seq = ++world.seq;
    one.books.stored += 1;
    one.books.pending += 1;
    const event = { seq, type: "track", name: "Test Event" };
    publish(world, { ...event, status: "stored" });
    setTimeout(() => {
      one.books.pending -= 1;
      one.books.acked += 1;
      world.sent += 1;
      world.places ??= new Map();
      world.places.set(seq, { integration: one.id, name: one.name, status: "delivered", partition: 2, offset: 41, code: null });
      publish(world, { ...event, integration: one.id, integration_name: one.name, status: "delivered", partition: 2, offset: 41, latency_ms: 12 });
    }, 200);
    return seq;
  }

  function integrationRoute(one, rest, method, body, url, response) {
    const [verb, sub] = rest;
    if (!verb) {
      if (method === "GET") return answer(response, one);
      if (method === "PATCH") {
        for (const [key, value] of Object.entries(body.config)) {
          if (value === null) delete one.config[key];
          else if (value !== "***") one.config[key] = key === "sasl_password" ? "***" : value;
        }
        one.failure = null;
        one.state = "running";
        return answer(response, one);
      }
      const lost = one.books.pending + one.books.buried;
      if (lost && Number(url.searchParams.get("confirm")) !== lost) {
        return refuse(response, 409, "CONFIRM_REQUIRED", `${lost} events would be discarded`, { pending: one.books.pending, parked: one.books.buried, confirm: lost });
      }
      world.integrations = world.integrations.filter((other) => other !== one);
      return answer(response, undefined, 204);
    }
    if (verb === "pause" || verb === "resume") Object.assign(one, { paused: verb === "pause", state: verb === "pause" ? "paused" : "running" });
    else if (verb === "enable" || verb === "disable") Object.assign(one, { enabled: verb === "enable", state: verb === "enable" ? "running" : "disabled" });
    else if (verb === "check") return answer(response, checkOf(one.config, one.name));
    else if (verb === "test-event") return answer(response, { seq: deliverTest(one) }, 202);
    else if (verb === "dead-letters") {
      const all = lettersOf(one);
      if (method === "GET" && sub) {
        const found = all.find((entry) => String(entry.seq) === sub);
        return found ? answer(response, found) : refuse(response, 404, "NOT_FOUND", "no such dead letter");
      }
      if (method === "GET") {
        const reason = url.searchParams.get("reason");
        const fit = all.filter((entry) => !reason || entry.reason === reason);
        const from = Number(url.searchParams.get("cursor") ?? 0);
        const limit = Number(url.searchParams.get("limit") ?? 50);
        const groups = new Map();
        for (const { reason: why, code } of all) groups.set(`${why} ${code}`, { reason: why, code, count: (groups.get(`${why} ${code}`)?.count ?? 0) + 1 });
        const more = from + limit < fit.length;
        return answer(response, { data: fit.slice(from, from + limit), next_cursor: more ? String(from + limit) : null, has_more: more, total: from ? null : fit.length, groups: from ? null : [...groups.values()] });
      }
      const chosen = select(all, body);
      if (!chosen.length) return refuse(response, 400, "NOTHING_SELECTED", "the selection names nothing");
      if (sub === "discard" && body.confirm !== chosen.length) {
        return refuse(response, 409, "CONFIRM_REQUIRED", `this discards ${chosen.length} events`, { confirm: chosen.length });
      }
      world.letters.set(one.id, all.filter((entry) => !chosen.includes(entry)));
      one.books.buried -= chosen.length;
      if (sub === "replay") one.books.acked += chosen.length;
      else one.books.discarded += chosen.length;
      return answer(response, { count: chosen.length }, sub === "replay" ? 202 : 200);
    }
    answer(response, one);
  }

  function route(url, request, body, response) {
    const path = url.pathname.split("/").slice(3).map(decodeURIComponent);
    const [area, ...rest] = path;
    const method = request.method;
    const cookie = /signal_agent_session=([^;]+)/.exec(request.headers.cookie ?? "")?.[1];
    if (method !== "GET" && !request.headers["x-signal-agent"]) return refuse(response, 403, "FORBIDDEN", "the header is missing");
    if (area === "session" && method === "POST") {
      if (body.token !== kToken) return refuse(response, 401, "INVALID_TOKEN", "the token is wrong");
      const id = String(Math.random()).slice(2);
      world.sessions.add(id);
      response.setHeader("Set-Cookie", `signal_agent_session=${id}; HttpOnly; SameSite=Strict; Path=/`);
      return answer(response, { actor: "session", expires_at: null });
    }
    if (area === "session" && method === "DELETE") {
      world.sessions.delete(cookie);
      return answer(response, undefined, 204);
    }
    if (!world.sessions.has(cookie)) return refuse(response, 401, "INVALID_TOKEN", "sign in");
    if (area === "session") return answer(response, { actor: "session", expires_at: null });
    if (area === "status") return answer(response, statusOf(world));
    if (area === "events" && rest[0] === "live") return stream(url, request, response);
    if (area === "events") {
      const seq = Number(rest[0]);
      if (seq < 1 || seq > world.seq) return refuse(response, 404, "NOT_FOUND", "no such event");
      const place = world.places?.get(seq);
      return answer(response, { seq, integrations: place ? [place] : world.integrations.map((one) => ({ integration: one.id, name: one.name, status: "pending", partition: null, offset: null, code: null })) });
    }
    if (area === "integration-catalog") {
      if (!rest.length) return answer(response, { data: kCatalog, next_cursor: null, has_more: false });
      const vendor = kCatalog.find((one) => one.key === rest[0]);
      const faults = faultsOf(vendor, body, rest[1] === "install");
      if (faults.length) return refuse(response, 422, "VALIDATION_FAILED", `${faults.length} fields are wrong`, { fields: faults });
      if (rest[1] === "check") return answer(response, checkOf(body.config));
      if (world.integrations.some((one) => one.name === body.name)) return refuse(response, 409, "NAME_EXISTS", `"${body.name}" exists already`);
      const config = { ...body.config };
      if (config.sasl_password) config.sasl_password = "***";
      const one = integration(`int_${world.integrations.length + 1}`, body.name, { type: vendor.key, config });
      world.integrations.push(one);
      return answer(response, one, 201);
    }
    if (area === "integrations") {
      const one = world.integrations.find((other) => other.id === rest[0] || other.name === rest[0]);
      return one ? integrationRoute(one, rest.slice(1), method, body, url, response) : refuse(response, 404, "NOT_FOUND", "no such integration");
    }
    refuse(response, 404, "NOT_FOUND", "no such path");
  }

  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://localhost");
    let text = "";
    request.on("data", (part) => (text += part));
    request.on("end", () => {
      if (!url.pathname.startsWith("/v1/admin/")) return file(url.pathname, response);
      const body = text ? JSON.parse(text) : {};
      world.calls.push({ method: request.method, path: url.pathname, body });
      if (world.down) return refuse(response, 503, "OVERLOADED", "too much to do");
      route(url, request, body, response);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    token: kToken,
    stop: () => new Promise((resolve) => {
      server.closeAllConnections();
      server.close(resolve);
    }),
  };
}
