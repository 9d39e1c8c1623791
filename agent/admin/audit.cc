#include "agent/admin/audit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "agent/shown.h"
#include "config/base/log.h"

namespace signal_agent::admin {

using Json = nlohmann::ordered_json;

namespace {

std::string read_all(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return std::move(text).str();
}

/// Lines from the last to the first; the visitor says false to end.
template <typename Visit>
bool backwards(std::string_view text, Visit&& visit) {
  while (!text.empty()) {
    if (text.back() == '\n') text.remove_suffix(1);
    const std::size_t start = text.rfind('\n');
    const std::string_view line = start == std::string_view::npos ? text : text.substr(start + 1);
    if (!visit(line)) return false;
    if (start == std::string_view::npos) break;
    text = text.substr(0, start + 1);
  }
  return true;
}

/// None for a line torn by a crash.
std::optional<Json> parse(std::string_view line) {
  Json entry = Json::parse(line, nullptr, false);
  if (!entry.is_object() || !entry.contains("id") || !entry["id"].is_number_unsigned() ||
      !entry.contains("action") || !entry["action"].is_string()) {
    return std::nullopt;
  }
  return entry;
}

bool fits(std::string_view action, std::string_view filter) {
  if (filter.empty()) return true;
  if (filter.ends_with(".*")) return action.starts_with(filter.substr(0, filter.size() - 1));
  return action == filter;
}

Json text_or_null(const std::string& text) {
  return text.empty() ? Json() : Json(text);
}

}  // namespace

Audit::Audit(std::filesystem::path state_dir, Clock& clock, std::uintmax_t max_file_bytes)
    : file_(state_dir / "audit.log"),
      older_(state_dir / "audit.log.1"),
      max_file_bytes_(max_file_bytes),
      clock_(clock) {
  Lock lock(mutex_);
  for (const auto& path : {file_, older_}) {
    backwards(read_all(path), [&](std::string_view line) NO_THREAD_SAFETY_ANALYSIS {
      if (const auto entry = parse(line)) {
        last_id_ = std::max(last_id_, (*entry)["id"].get<std::uint64_t>());
        return false;
      }
      return true;
    });
  }
}

void Audit::record(const AuditEntry& entry) {
  Lock lock(mutex_);
  const Json json{{"id", ++last_id_},
                  {"timestamp", rfc3339(clock_.wall_ms())},
                  {"action", entry.action},
                  {"actor", entry.actor},
                  {"ip_address", text_or_null(entry.ip_address)},
                  {"resource_type", entry.resource_type},
                  {"resource_id", text_or_null(entry.resource_id)},
                  {"resource_name", text_or_null(entry.resource_name)},
                  {"changes", entry.changes},
                  {"details", entry.details},
                  {"outcome", entry.outcome}};
  append(json_text(json) + "\n");
}

void Audit::append(const std::string& line) {
  const auto failed = [&](const char* what) {
    log::error("audit entry could not be written", {{"path", file_.string()},
                                                    {"step", what},
                                                    {"error", std::strerror(errno)},
                                                    {"entry", line.substr(0, line.size() - 1)}});
  };
  std::error_code ignored;  // because a missing file has size 0 for this purpose
  const std::uintmax_t size = std::filesystem::file_size(file_, ignored);
  if (!ignored && size + line.size() > max_file_bytes_ && size > 0 &&
      ::rename(file_.c_str(), older_.c_str()) != 0) {
    failed("rotate");  // and go on in the same file: an entry is worth more than the bound
  }
  const int fd = ::open(file_.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
  if (fd < 0) {
    failed("open");
    return;
  }
  std::string text = line;
  struct stat status {};
  char last = '\n';
  if (::fstat(fd, &status) == 0 && status.st_size > 0 &&
      ::pread(fd, &last, 1, status.st_size - 1) == 1 && last != '\n') {
    text.insert(0, "\n");  // behind a line torn by a crash
  }
  if (::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    failed("write");
  } else if (::fdatasync(fd) != 0) {
    failed("sync");
  }
  ::close(fd);
}

Audit::Page Audit::list(std::uint64_t before, std::size_t limit, std::string_view action) const {
  Page page;
  Lock lock(mutex_);
  for (const auto& path : {file_, older_}) {
    const bool go_on = backwards(read_all(path), [&](std::string_view line) {
      auto entry = parse(line);
      if (!entry) return true;
      if (before != 0 && (*entry)["id"].get<std::uint64_t>() >= before) return true;
      if (!fits((*entry)["action"].get_ref<const std::string&>(), action)) return true;
      if (page.entries.size() == limit) {
        page.more = true;
        return false;
      }
      page.entries.push_back(*std::move(entry));
      return true;
    });
    if (!go_on) break;
  }
  return page;
}

}  // namespace signal_agent::admin
