// The fixture of the management tests: a fake agent, a request that goes the way the server takes
// it (match, check, handler), and every answer held against the API description.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "agent/admin/admin.h"
#include "agent/control.h"
#include "agent/http/http.h"
#include "config/base/clock.h"

namespace signal_agent::admin {

using nlohmann::json;

inline constexpr const char* kToken = "s3cret-management-token";
inline constexpr const char* kPassword = "YOUR_API_SECRET_8f2a";

/// A folder that goes with the test.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// An agent without threads: what a test puts into `now` is what is shown.
class FakeAgent final : public Control {
 public:
  FakeAgent();

  Snapshot snapshot() const override;
  std::optional<std::pair<std::string, std::string>> not_ready() const override;
  Result<Integration> install(Integration integration) override;
  Result<Integration> update(const Integration& integration) override;
  Result<void> set_enabled(const std::string& id, bool enabled) override;
  Result<void> set_paused(const std::string& id, bool paused) override;
  Result<Removal> remove(const std::string& id, std::optional<std::uint64_t> confirm) override;
  Result<spool::Seq> test_event(const std::string& id) override;
  spool::Spool* spool() const override { return spool_in_use; }
  std::shared_ptr<forward::Forwarder> forwarder(const std::string& id) const override;
  LiveFeed& live() override { return feed; }
  const Settings& settings() const override { return settings_in_use; }
  Result<void> reload() override;

  IntegrationView& view(const std::string& name);

  mutable std::recursive_mutex mutex;
  Snapshot now;
  Settings settings_in_use;
  std::optional<std::pair<std::string, std::string>> refusal;
  std::uint64_t delivered_during_removal = 0;
  std::uint64_t removals_outrun = 0;  // so many orders to remove find one more event pending
  std::optional<Error> reload_fault;
  spool::Spool* spool_in_use = nullptr;
  std::shared_ptr<forward::Forwarder> deliverer;
  LiveFeed feed{256};
  std::function<void()> before_snapshot;  // to hold the lane up
};

/// An integration as the file or the API brings it.
IntegrationView some_integration(const std::string& name, Integration::Origin origin);

struct Reply {
  int status = 0;
  std::string body;
  std::string content_type;
  std::vector<std::pair<std::string, std::string>> headers;

  std::string header(const std::string& name) const;
  json parsed() const { return json::parse(body); }
  std::string code() const { return parsed()["error"]["code"]; }
};

/// A stream a test reads at will.
class FakeStream final : public http::Stream {
 public:
  bool write(std::string_view bytes) override;
  bool closed() const override { return closed_; }
  void close() override { closed_ = true; }

  std::string text() const;
  /// Waits until the text contains that, for at most some seconds.
  bool wait_for(const std::string& part) const;
  std::atomic<bool> stalled{false};

 private:
  mutable std::mutex mutex_;
  std::string text_;
  std::atomic<bool> closed_{false};
};

class AdminTest : public ::testing::Test {
 protected:
  AdminTest();
  ~AdminTest() override;

  using Headers = std::vector<std::pair<std::string, std::string>>;

  /// With the token, from loopback, to a known host; `more` replaces headers of the same name.
  Reply ask(const std::string& method, const std::string& target, const std::string& body = "",
            const Headers& more = {});
  Reply ask(const std::string& method, const std::string& target, const json& body) {
    return ask(method, target, body.dump());
  }
  /// The request as given, without anything added.
  Reply ask_as(http::Peer peer, const std::string& method, const std::string& target,
               const std::string& body, const Headers& headers);
  std::shared_ptr<FakeStream> watch(const std::string& target, const Headers& more = {});

  json installed(const std::string& name);  // by the API; the integration
  std::string audit_log() const;

  static http::Peer loopback() { return {false, "127.0.0.1:51234", 0, true}; }
  static http::Peer unix_peer() { return {true, "unix:uid=1000,pid=77", 1000, true}; }
  static http::Peer stranger() { return {false, "192.0.2.7:40000", 0, false}; }

  TempDir dir;
  FakeAgent agent;
  std::vector<kafka::Stage> stages;
  std::vector<kafka::PreflightOptions> preflights;
  std::function<void(const kafka::PreflightOptions&)> during_preflight;
  std::unique_ptr<Admin> admin;
  http::Router router;
  std::set<std::string> seen;  // every byte of every answer, for the hunt for secrets
};

/// The body of the documented call.
json seed_body(const std::string& name = "Confluent Cloud");

}  // namespace signal_agent::admin
