#include "config/integration_store.h"

#include <fcntl.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "config/base/atomic_file.h"
#include "config/base/mutex.h"
#include "config/seal.h"

namespace signal_agent {
namespace {

using nlohmann::json;

constexpr std::string_view kFileName = "integrations.json";
constexpr std::string_view kHeader = "signal-agent integrations v1 sha256=";
constexpr std::size_t kMaxFileBytes = 16 * 1024 * 1024;
constexpr mode_t kFileMode = 0600;
constexpr mode_t kFolderMode = 0750;

struct Content {
  std::vector<Integration> integrations;          // in the order they were installed
  std::map<std::string, std::uint64_t> removing;  // confirmed, not finished; by id
  std::set<std::string> paused;                   // file integrations, by id
};

std::string hex_sha256(std::string_view text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string hex;
  for (const unsigned char byte : digest) {
    hex += kHex[byte >> 4];
    hex += kHex[byte & 0xf];
  }
  return hex;
}

std::string purpose_of(const std::string& id, const std::string& field) {
  return id + "/" + field;
}

Result<json> value_to_json(const ConfigValue& value, const std::string& purpose,
                           const SealKeys& keys) {
  if (const auto* text = std::get_if<std::string>(&value)) return json(*text);
  if (const auto* number = std::get_if<std::int64_t>(&value)) return json(*number);
  if (const auto* list = std::get_if<std::vector<std::string>>(&value)) return json(*list);
  Result<std::string> sealed = keys.seal(std::get<Secret>(value), purpose);
  if (!sealed) return std::move(sealed).error();
  return json{{"sealed", *sealed}};
}

Result<ConfigValue> value_from_json(const json& value, const std::string& purpose,
                                    const SealKeys& keys) {
  if (value.is_string()) return ConfigValue(value.get<std::string>());
  if (value.is_number_integer()) return ConfigValue(value.get<std::int64_t>());
  if (value.is_array()) return ConfigValue(value.get<std::vector<std::string>>());
  Result<Secret> secret = keys.open(value.at("sealed").get<std::string>(), purpose);
  if (!secret) return std::move(secret).error();
  return ConfigValue(*std::move(secret));
}

Result<json> to_json(const Integration& integration, const SealKeys& keys) {
  json config = json::object();
  for (const auto& [field, value] : integration.config) {
    Result<json> member = value_to_json(value, purpose_of(integration.id, field), keys);
    if (!member) return std::move(member).error();
    config[field] = *std::move(member);
  }
  return json{{"id", integration.id},
              {"name", integration.name},
              {"catalog", integration.catalog},
              {"variant", integration.variant},
              {"delivery_mode", integration.delivery_mode},
              {"enabled", integration.enabled},
              {"paused", integration.paused},
              {"start_at_oldest", integration.start_at_oldest},
              {"created_ms", integration.created_ms},
              {"updated_ms", integration.updated_ms},
              {"config", std::move(config)}};
}

Result<Integration> from_json(const json& object, const SealKeys& keys) {
  Integration integration;
  integration.origin = Integration::Origin::kApi;
  integration.id = object.at("id").get<std::string>();
  integration.name = object.at("name").get<std::string>();
  integration.catalog = object.at("catalog").get<std::string>();
  integration.variant = object.at("variant").get<std::string>();
  integration.delivery_mode = object.at("delivery_mode").get<std::string>();
  integration.enabled = object.at("enabled").get<bool>();
  integration.paused = object.at("paused").get<bool>();
  integration.start_at_oldest = object.at("start_at_oldest").get<bool>();
  integration.created_ms = object.at("created_ms").get<std::int64_t>();
  integration.updated_ms = object.at("updated_ms").get<std::int64_t>();
  for (const auto& [field, value] : object.at("config").items()) {
    Result<ConfigValue> taken = value_from_json(value, purpose_of(integration.id, field), keys);
    if (!taken) {
      return std::move(taken).error().with_context("integration \"" + integration.name +
                                                   "\", field " + field);
    }
    integration.config.insert_or_assign(field, *std::move(taken));
  }
  return integration;
}

Result<std::string> encode(const Content& content, const SealKeys& keys) {
  json list = json::array();
  for (const Integration& integration : content.integrations) {
    Result<json> object = to_json(integration, keys);
    if (!object) return std::move(object).error();
    list.push_back(*std::move(object));
  }
  try {
    const std::string body = json{{"integrations", std::move(list)},
                                  {"removing", content.removing},
                                  {"paused_from_file", content.paused}}
                                 .dump(2) +
                             "\n";
    return std::string(kHeader) + hex_sha256(body) + "\n" + body;
  } catch (const json::exception& error) {  // text that is no UTF-8
    return Error{Code::kInvalid, std::string("this integration cannot be stored: ") + error.what()};
  }
}

Error corrupt(const std::filesystem::path& path, const std::string& what, const std::string& then) {
  return Error{Code::kCorrupt, path.string() + " " + what + "; " + then};
}

Result<Content> decode(const std::filesystem::path& path, std::string_view text,
                       const SealKeys& keys) {
  const std::string restore =
      "restore it from a backup, or move it away and install its integrations again";
  const std::size_t line = text.find('\n');
  if (!text.starts_with(kHeader) || line == std::string_view::npos) {
    return corrupt(path, "is not a list of integrations", restore);
  }
  const std::string_view digest = text.substr(kHeader.size(), line - kHeader.size());
  const std::string_view body = text.substr(line + 1);
  if (digest != hex_sha256(body)) {
    return corrupt(path, "is damaged or was changed by hand: its checksum does not fit", restore);
  }
  try {
    Content content;
    const json root = json::parse(body);
    for (const json& object : root.at("integrations")) {
      Result<Integration> integration = from_json(object, keys);
      if (!integration) {
        return corrupt(path, "cannot be opened: " + integration.error().message,
                       "restore seal.key beside it (or the credential signal-agent.key), or move "
                       "the file away and install its integrations again");
      }
      content.integrations.push_back(*std::move(integration));
    }
    content.removing = root.value("removing", std::map<std::string, std::uint64_t>());
    content.paused = root.at("paused_from_file").get<std::set<std::string>>();
    return content;
  } catch (const json::exception& error) {
    return corrupt(path, std::string("has an unknown shape: ") + error.what(), restore);
  }
}

// kNotFound when there is none.
Result<std::string> read_store(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const Code code = errno == ENOENT   ? Code::kNotFound
                      : errno == EACCES ? Code::kDenied
                                        : Code::kIo;
    return Error{code, "reading " + path.string() + ": " + std::strerror(errno)};
  }
  std::string text;
  char chunk[16 * 1024];
  ssize_t got = 0;
  while ((got = ::read(fd, chunk, sizeof chunk)) > 0 || (got < 0 && errno == EINTR)) {
    if (got > 0) text.append(chunk, static_cast<std::size_t>(got));
    if (text.size() > kMaxFileBytes) break;
  }
  const int number = errno;
  ::close(fd);
  if (got < 0) return Error{Code::kIo, "reading " + path.string() + ": " + std::strerror(number)};
  if (text.size() > kMaxFileBytes) return Error{Code::kCorrupt, path.string() + " is too large"};
  return text;
}

}  // namespace

struct IntegrationStore::Impl {
  std::filesystem::path state_dir;
  std::filesystem::path path;

  mutable Mutex mutex;
  SealKeys keys GUARDED_BY(mutex);
  Content content GUARDED_BY(mutex);

  // Makes `wanted` durable, then current. After an error the content is the old one.
  Result<void> replace(Content wanted) REQUIRES(mutex) {
    std::error_code failure;
    if (std::filesystem::create_directories(state_dir, failure)) {
      ::chmod(state_dir.c_str(), kFolderMode);
    }
    if (failure) {
      return Error{Code::kIo, "creating " + state_dir.string() + ": " + failure.message()};
    }
    if (Result<void> key = keys.ensure(state_dir); !key) return key;
    Result<std::string> text = encode(wanted, keys);
    if (!text) return std::move(text).error();
    if (Result<void> written = write_file_atomically(path, *text, kFileMode); !written) {
      return std::move(written).error().with_context("storing the integrations");
    }
    content = std::move(wanted);
    return {};
  }
};

Result<std::unique_ptr<IntegrationStore>> IntegrationStore::open(
    const std::filesystem::path& state_dir) {
  const char* credentials = std::getenv("CREDENTIALS_DIRECTORY");
  Result<SealKeys> keys = SealKeys::load(state_dir, credentials == nullptr ? "" : credentials);
  if (!keys) return std::move(keys).error().with_context("opening the installed integrations");

  auto impl = std::make_unique<Impl>();
  impl->state_dir = state_dir;
  impl->path = state_dir / kFileName;
  const Lock lock(impl->mutex);
  impl->keys = *std::move(keys);
  Result<std::string> text = read_store(impl->path);
  if (text) {
    Result<Content> content = decode(impl->path, *text, impl->keys);
    if (!content) return std::move(content).error();
    impl->content = *std::move(content);
  } else if (text.error().code != Code::kNotFound) {
    return std::move(text).error();
  }
  return std::unique_ptr<IntegrationStore>(new IntegrationStore(std::move(impl)));
}

IntegrationStore::IntegrationStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
IntegrationStore::~IntegrationStore() = default;

std::vector<Integration> IntegrationStore::list() const {
  const Lock lock(impl_->mutex);
  return impl_->content.integrations;
}

Result<void> IntegrationStore::put(const Integration& integration) {
  const Lock lock(impl_->mutex);
  Content wanted = impl_->content;
  const auto same = std::find_if(wanted.integrations.begin(), wanted.integrations.end(),
                                 [&](const Integration& one) { return one.id == integration.id; });
  if (same == wanted.integrations.end()) {
    wanted.integrations.push_back(integration);
  } else {
    *same = integration;
  }
  return impl_->replace(std::move(wanted));
}

Result<void> IntegrationStore::begin_removal(const std::string& id, std::uint64_t through) {
  const Lock lock(impl_->mutex);
  Content wanted = impl_->content;
  const auto removed =
      std::erase_if(wanted.integrations, [&](const Integration& one) { return one.id == id; });
  if (removed == 0) {
    return Error{Code::kNotFound, "no integration with the id " + id + " is installed"};
  }
  wanted.removing.insert_or_assign(id, through);
  return impl_->replace(std::move(wanted));
}

Result<void> IntegrationStore::finish_removal(const std::string& id) {
  const Lock lock(impl_->mutex);
  if (!impl_->content.removing.contains(id)) return {};
  Content wanted = impl_->content;
  wanted.removing.erase(id);
  return impl_->replace(std::move(wanted));
}

std::map<std::string, std::uint64_t> IntegrationStore::removals() const {
  const Lock lock(impl_->mutex);
  return impl_->content.removing;
}

std::set<std::string> IntegrationStore::paused_file_integrations() const {
  const Lock lock(impl_->mutex);
  return impl_->content.paused;
}

Result<void> IntegrationStore::set_file_integration_paused(const std::string& id, bool paused) {
  const Lock lock(impl_->mutex);
  if (impl_->content.paused.contains(id) == paused) return {};
  Content wanted = impl_->content;
  if (paused) {
    wanted.paused.insert(id);
  } else {
    wanted.paused.erase(id);
  }
  return impl_->replace(std::move(wanted));
}

}  // namespace signal_agent
