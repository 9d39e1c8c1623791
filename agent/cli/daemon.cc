#include "agent/cli/daemon.h"

#include <algorithm>
#include <fstream>

#include "agent/shown.h"

namespace signal_agent::cli {

namespace {

Trouble from_error(const Error& error) {
  switch (error.code) {
    case Code::kDenied:
      return {kDenied, error.message, 0, {}};
    case Code::kUnavailable:
      return {kUnreachable, error.message, 0, {}};
    default:
      return {kFailed, error.message, 0, {}};
  }
}

Trouble from_answer(const http::ClientResponse& answer) {
  Trouble trouble;
  trouble.status = answer.status;
  trouble.exit = answer.status == 401 || answer.status == 403 ? kDenied : kFailed;
  const Json body = Json::parse(answer.body, nullptr, false);
  if (body.is_object() && body.contains("error") && body["error"].is_object()) {
    trouble.error = body["error"];
    trouble.message =
        trouble.error.value("message", "") + " (" + trouble.error.value("code", "") + ")";
  } else {
    trouble.message = "the agent answered " + std::to_string(answer.status);
  }
  return trouble;
}

/// What a client connects to for a listener that listens everywhere.
ListenAddress reachable(ListenAddress address) {
  if (address.host == "0.0.0.0") address.host = "127.0.0.1";
  if (address.host == "::") address.host = "::1";
  return address;
}

Answer<Secret> token_of(const Settings& settings) {
  if (settings.admin.token && !settings.admin.token->empty()) return *settings.admin.token;
  const auto path = settings.state_dir / "admin.token";
  std::ifstream file(path);
  std::string text;
  if (!std::getline(file, text) || text.empty()) {
    return Trouble{kDenied,
                   "cannot read the management token " + path.string() +
                       "; run this as root or as the agent's user",
                   0,
                   {}};
  }
  return Secret(std::move(text));
}

}  // namespace

std::optional<Trouble> Daemon::find() {
  if (client_) return std::nullopt;
  std::vector<Place> places;
  for (const ListenAddress& address : settings_.admin.listen) {
    if (address.kind == ListenAddress::Kind::kUnix) places.push_back({address, std::nullopt});
  }
  std::optional<Trouble> trouble;
  if (!settings_.admin.tls.enabled()) {
    for (const ListenAddress& address : settings_.admin.listen) {
      if (address.kind != ListenAddress::Kind::kTcp || address.port == 0) continue;
      const auto token = token_of(settings_);
      if (token) {
        places.push_back({reachable(address), *token});
      } else {
        trouble = token.trouble();
      }
    }
  }
  for (const Place& place : places) {
    auto client = std::make_unique<http::Client>(place.address);
    const auto alive = client->request("GET", "/healthz");
    if (alive) {
      client_ = std::move(client);
      place_ = place;
      return std::nullopt;
    }
    // The first place is the one to talk about; a refusal says more than a silence.
    if (!trouble || (trouble->exit == kUnreachable && alive.error().code == Code::kDenied)) {
      trouble = from_error(alive.error());
    }
  }
  if (!trouble) {
    const bool picked = std::any_of(
        settings_.admin.listen.begin(), settings_.admin.listen.end(), [](const auto& address) {
          return address.kind == ListenAddress::Kind::kTcp && address.port == 0;
        });
    trouble = Trouble{kUnreachable,
                      picked ? "the management port is 0, which is picked at start and unknown to "
                               "this command; add a unix socket to admin.listen"
                             : "no management listener is configured that this command can use",
                      0,
                      {}};
  }
  return trouble;
}

http::Client::Headers Daemon::headers() const {
  http::Client::Headers headers{{"Accept", "application/json"}};
  if (place_ && place_->token) {
    headers.emplace_back("Authorization", "Bearer " + place_->token->reveal());
  }
  return headers;
}

Answer<Json> Daemon::request(std::string_view method, const std::string& target, const Json& body) {
  if (auto trouble = find()) return *std::move(trouble);
  http::Client::Headers with = headers();
  std::string text;
  if (!body.is_null()) {
    text = json_text(body);
    with.emplace_back("Content-Type", "application/json");
  }
  // A connection test waits for the network, stage by stage.
  if (target.ends_with("/check")) {
    client_ = std::make_unique<http::Client>(place_->address, std::chrono::minutes(3));
  }
  const auto answer = client_->request(method, target, text, with);
  if (!answer) return from_error(answer.error());
  if (answer->status / 100 != 2) return from_answer(*answer);
  if (answer->body.empty()) return Json();
  Json parsed = Json::parse(answer->body, nullptr, false);
  if (parsed.is_discarded()) return Trouble{kFailed, "the agent answered no JSON", 0, {}};
  return parsed;
}

Answer<int> Daemon::stream(const std::string& target, const http::Client::Headers& more,
                           std::chrono::milliseconds quiet,
                           const std::function<bool(std::string_view)>& on_data) {
  if (auto trouble = find()) return *std::move(trouble);
  http::Client::Headers with = headers();
  with.insert(with.end(), more.begin(), more.end());
  http::Client client(place_->address, quiet);
  const auto status = client.stream(target, with, on_data);
  if (!status) {
    client_.reset();  // the agent may be gone: look for it again
    return from_error(status.error());
  }
  if (*status / 100 != 2) {
    return Trouble{*status == 401 || *status == 403 ? kDenied : kFailed,
                   "the agent answered " + std::to_string(*status),
                   *status,
                   {}};
  }
  return *status;
}

std::optional<Trouble> Daemon::each(const std::string& target,
                                    const std::function<bool(const Json&)>& visit) {
  std::string cursor;
  const char joint = target.find('?') == std::string::npos ? '?' : '&';
  for (;;) {
    std::string page_target = target + joint + "limit=100";
    if (!cursor.empty()) page_target += "&cursor=" + percent_encode(cursor);
    const auto page = request("GET", page_target);
    if (!page) return page.trouble();
    for (const Json& entry : page->at("data")) {
      if (!visit(entry)) return std::nullopt;
    }
    if (!page->at("has_more").get<bool>()) return std::nullopt;
    cursor = page->at("next_cursor").get<std::string>();
  }
}

Answer<Json> Daemon::integration(const std::string& name) {
  std::vector<Json> all;
  std::string names;
  auto trouble = each("/v1/admin/integrations", [&](const Json& entry) {
    names += (names.empty() ? "" : ", ") + entry.at("name").get<std::string>();
    all.push_back(entry);
    return true;
  });
  if (trouble) return *std::move(trouble);
  if (name.empty()) {
    if (all.size() == 1) return all.front();
    if (all.empty()) return Trouble{kFailed, "no integration is installed", 0, {}};
    return Trouble{kUsage, "there are several integrations; name one: " + names, 0, {}};
  }
  for (const Json& entry : all) {
    if (entry.at("name") == name || entry.at("id") == name) return entry;
  }
  return Trouble{kFailed,
                 "there is no integration \"" + name + "\"" +
                     (names.empty() ? "; none is installed" : "; there are: " + names),
                 0,
                 {}};
}

Exit report(Terminal& terminal, const Trouble& trouble) {
  terminal.complain(trouble.message);
  if (trouble.error.is_object() && trouble.error.contains("fields")) {
    for (const Json& field : trouble.error["fields"]) {
      terminal.err << "  " << printable(field.value("field", "")) << ": "
                   << printable(field.value("message", "")) << "\n";
    }
  }
  if (trouble.exit == kUnreachable) {
    terminal.err << "Is it running? systemctl status signal-agent. Another configuration? --config "
                    "FILE.\n";
  }
  return trouble.exit;
}

std::string text(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::uint64_t number(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

std::string path_of(const Json& integration) {
  return "/v1/admin/integrations/" + text(integration, "id");
}

std::string percent_encode(std::string_view text) {
  static constexpr std::string_view kDigits = "0123456789ABCDEF";
  static constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  std::string encoded;
  for (const char c : text) {
    if (kPlain.find(c) != std::string_view::npos) {
      encoded += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    encoded += '%';
    encoded += kDigits[byte >> 4];
    encoded += kDigits[byte & 15];
  }
  return encoded;
}

}  // namespace signal_agent::cli
