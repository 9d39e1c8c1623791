#include "tests/unit/admin/fixture.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <future>
#include <sstream>
#include <thread>

#include "spool/spool.h"
#include "tests/unit/admin/schema.h"

namespace signal_agent::admin {

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "admin-test-XXXXXX").string();
  path_ = ::mkdtemp(pattern.data());
}

TempDir::~TempDir() {
  std::error_code ignored;  // because a folder left behind in /tmp fails nothing
  std::filesystem::remove_all(path_, ignored);
}

FakeAgent::FakeAgent() {
  now.version = "1.2.3";
  now.now_ms = 1'771'943'400'000;
  now.started_ms = now.now_ms - 3'600'000;
  now.spool_state = "open";
  now.spool.emplace();
  now.spool->spool_id = "5f0c";
  now.spool->first = {1};
}

Snapshot FakeAgent::snapshot() const {
  if (before_snapshot) before_snapshot();
  const std::lock_guard lock(mutex);
  return now;
}

std::optional<std::pair<std::string, std::string>> FakeAgent::not_ready() const {
  const std::lock_guard lock(mutex);
  return refusal;
}

IntegrationView& FakeAgent::view(const std::string& name) {
  const auto found = std::find_if(
      now.integrations.begin(), now.integrations.end(),
      [&](const auto& v) { return v.integration.name == name || v.integration.id == name; });
  EXPECT_NE(found, now.integrations.end()) << name;
  return *found;
}

Result<Integration> FakeAgent::install(Integration integration) {
  const std::lock_guard lock(mutex);
  for (const auto& known : now.integrations) {
    if (known.integration.name == integration.name) {
      return Error{Code::kExists, "\"" + integration.name + "\" is installed already"};
    }
  }
  IntegrationView view;
  view.integration = integration;
  view.cursor.emplace();
  view.delivery.emplace();
  now.integrations.push_back(view);
  return integration;
}

Result<Integration> FakeAgent::update(const Integration& integration) {
  const std::lock_guard lock(mutex);
  view(integration.id).integration = integration;
  return integration;
}

Result<void> FakeAgent::set_enabled(const std::string& id, bool enabled) {
  const std::lock_guard lock(mutex);
  view(id).integration.enabled = enabled;
  return {};
}

Result<void> FakeAgent::set_paused(const std::string& id, bool paused) {
  const std::lock_guard lock(mutex);
  view(id).integration.paused = paused;
  return {};
}

Result<Removal> FakeAgent::remove(const std::string& id, std::optional<std::uint64_t> confirm) {
  const std::lock_guard lock(mutex);
  if (removals_outrun > 0) {
    --removals_outrun;
    ++view(id).cursor->books.pending;
  }
  const spool::Books books = view(id).cursor ? view(id).cursor->books : spool::Books{};
  const std::uint64_t lost = books.pending + books.buried;
  Removal removal{.pending = books.pending, .buried = books.buried};
  if (lost > 0 && confirm != lost) return removal;
  std::erase_if(now.integrations, [&](const auto& v) { return v.integration.id == id; });
  removal.done = true;
  removal.discarded = lost - std::min(lost, delivered_during_removal);
  return removal;
}

Result<spool::Seq> FakeAgent::test_event(const std::string&) {
  if (spool_in_use == nullptr) return spool::Seq{4711};
  spool::AppendBatch batch;
  spool::NewEvent event;
  event.value = R"({"type":"track","event":"Test"})";
  batch.add(event);
  std::promise<Result<spool::Appended>> answered;
  spool_in_use->append(std::move(batch), [&](Result<spool::Appended> result) {
    answered.set_value(std::move(result));
  });
  return answered.get_future().get()->last;
}

std::shared_ptr<forward::Forwarder> FakeAgent::forwarder(const std::string&) const {
  return deliverer;
}

Result<void> FakeAgent::reload() {
  if (reload_fault) return *reload_fault;
  const std::lock_guard lock(mutex);
  now.reloaded_ms = now.now_ms;
  return {};
}

IntegrationView some_integration(const std::string& name, Integration::Origin origin) {
  IntegrationView view;
  view.integration.id =
      origin == Integration::Origin::kFile ? file_integration_id(name) : "int_00000000000000aa";
  view.integration.name = name;
  view.integration.catalog = "confluent_cloud";
  view.integration.origin = origin;
  view.integration.config = {{"bootstrap_servers", std::string("pkc.example:9092")},
                             {"topic", std::string("events")},
                             {"security_protocol", std::string("SASL_SSL")},
                             {"sasl_mechanism", std::string("PLAIN")},
                             {"sasl_username", std::string("KEY")},
                             {"sasl_password", Secret(kPassword)}};
  view.cursor.emplace();
  view.cursor->id = 1;
  view.delivery.emplace();
  view.delivery->state = forward::DeliveryState::kRunning;
  return view;
}

std::string Reply::header(const std::string& name) const {
  for (const auto& [key, value] : headers) {
    if (http::equal_ignoring_case(key, name)) return value;
  }
  return "";
}

bool FakeStream::write(std::string_view bytes) {
  if (stalled || closed_) return false;
  const std::lock_guard lock(mutex_);
  text_ += bytes;
  return true;
}

std::string FakeStream::text() const {
  const std::lock_guard lock(mutex_);
  return text_;
}

bool FakeStream::wait_for(const std::string& part) const {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (text().find(part) == std::string::npos) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

namespace {

/// Takes the one answer of a request.
class FakeSink final : public http::Responder::Sink {
 public:
  void send(http::Response response) override {
    const std::lock_guard lock(mutex_);
    response_ = std::move(response);
    changed_.notify_all();
  }
  std::shared_ptr<http::Stream> open_stream(http::Response head, std::size_t) override {
    const auto stream = std::make_shared<FakeStream>();
    const std::lock_guard lock(mutex_);
    stream_ = stream;
    response_ = std::move(head);
    changed_.notify_all();
    return stream;
  }

  http::Response wait() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(60), [&] { return response_.has_value(); })) {
      ADD_FAILURE() << "no answer";
      return {};
    }
    return *response_;
  }
  std::shared_ptr<FakeStream> stream() {
    const std::lock_guard lock(mutex_);
    return stream_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<http::Response> response_;
  std::shared_ptr<FakeStream> stream_;
};

http::Request request_for(http::Peer peer, const std::string& method, const std::string& target,
                          const std::string& body,
                          const std::vector<std::pair<std::string, std::string>>& headers) {
  http::Request request;
  request.method = method;
  const std::size_t question = target.find('?');
  request.path = http::clean_path(target.substr(0, question)).value_or("");
  if (question != std::string::npos) request.query = target.substr(question + 1);
  request.body = body;
  request.headers = headers;
  request.peer = std::move(peer);
  return request;
}

}  // namespace

AdminTest::AdminTest() {
  agent.settings_in_use.state_dir = dir.path();
  agent.settings_in_use.admin.token = Secret(kToken);
  Admin::Options options;
  options.settings = agent.settings_in_use.admin;
  options.state_dir = dir.path();
  options.preflight = [this](const kafka::PreflightOptions& asked) {
    preflights.push_back(asked);
    if (during_preflight) during_preflight(asked);
    return stages;
  };
  admin = std::make_unique<Admin>(agent, std::move(options));
  admin->add_routes(router);
}

AdminTest::~AdminTest() {
  admin->stop();
}

Reply AdminTest::ask(const std::string& method, const std::string& target, const std::string& body,
                     const Headers& more) {
  Headers headers = more;
  const auto add = [&](const char* name, const std::string& value) {
    const bool given = std::any_of(more.begin(), more.end(),
                                   [&](const auto& header) { return header.first == name; });
    if (!given) headers.emplace_back(name, value);
  };
  add("Host", "127.0.0.1:8084");
  add("Authorization", std::string("Bearer ") + kToken);
  add("Content-Type", "application/json");
  return ask_as(loopback(), method, target, body, headers);
}

Reply AdminTest::ask_as(http::Peer peer, const std::string& method, const std::string& target,
                        const std::string& body, const Headers& headers) {
  http::Request request = request_for(std::move(peer), method, target, body, headers);
  const std::string path = request.path;
  const http::Router::Match match = router.match(method, path);
  const auto sink = std::make_shared<FakeSink>();
  if (match.handler == nullptr) {
    const int status = match.allowed.empty() ? 404 : 405;
    return {status, R"({"error":{"code":"NOT_FOUND"}})", "application/json", {}};
  }
  request.params = match.params;
  std::optional<http::Response> refused = router.check()(request);
  if (!refused && match.options->check) refused = match.options->check(request);
  http::Response response;
  if (refused) {
    response = *std::move(refused);
  } else {
    (*match.handler)(std::move(request), http::Responder(sink));
    response = sink->wait();
  }
  const Reply reply{response.status, response.body, std::string(response.content_type),
                    response.headers};
  if (path.starts_with("/v1/") || path == "/healthz" || path == "/readyz" || path == "/metrics") {
    for (const std::string& fault :
         faults_of_answer(method, path, reply.status, reply.content_type, reply.body)) {
      ADD_FAILURE() << method << " " << target << ": " << fault;
    }
  }
  seen.insert(reply.body);
  for (const auto& [name, value] : reply.headers) seen.insert(value);
  return reply;
}

std::shared_ptr<FakeStream> AdminTest::watch(const std::string& target, const Headers& more) {
  Headers headers = more;
  headers.emplace_back("Host", "localhost:8084");
  headers.emplace_back("Authorization", std::string("Bearer ") + kToken);
  http::Request request = request_for(loopback(), "GET", target, "", headers);
  const http::Router::Match match = router.match("GET", request.path);
  EXPECT_NE(match.handler, nullptr);
  EXPECT_FALSE(router.check()(request));
  const auto sink = std::make_shared<FakeSink>();
  (*match.handler)(std::move(request), http::Responder(sink));
  EXPECT_EQ(sink->wait().content_type, "text/event-stream");
  return sink->stream();
}

json AdminTest::installed(const std::string& name) {
  const Reply reply =
      ask("POST", "/v1/admin/integration-catalog/confluent_cloud/install", seed_body(name));
  EXPECT_EQ(reply.status, 201) << reply.body;
  return reply.parsed();
}

std::string AdminTest::audit_log() const {
  std::ifstream file(dir.path() / "audit.log");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

json seed_body(const std::string& name) {
  return {{"name", name},
          {"variant", "default"},
          {"config",
           {{"bootstrap_servers", "pkc-abc123.us-east-1.aws.confluent.cloud:9092"},
            {"topic", "datafly-events"},
            {"security_protocol", "SASL_SSL"},
            {"sasl_mechanism", "PLAIN"},
            {"sasl_username", "YOUR_API_KEY"},
            {"sasl_password", kPassword}}},
          {"delivery_mode", "server_side"}};
}

}  // namespace signal_agent::admin
