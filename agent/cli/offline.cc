#include "agent/cli/offline.h"

#include "config/integration_store.h"

namespace signal_agent::cli {

namespace {

constexpr std::string_view kFileCursor = "file/";
constexpr std::string_view kApiCursor = "api/";

}  // namespace

Answer<std::unique_ptr<spool::Spool>> open_offline(const Settings& settings) {
  const auto dir = settings.state_dir / "spool";
  std::error_code unreadable;
  const bool exists = std::filesystem::exists(dir, unreadable);
  if (unreadable) {
    return Trouble{kDenied,
                   "cannot look into " + settings.state_dir.string() +
                       "; run this as root or as the agent's user",
                   0,
                   {}};
  }
  if (!exists) return Trouble{kFailed, "there is no spool in " + dir.string(), 0, {}};
  spool::Spool::Options options;
  options.dir = dir;
  options.limits = settings.spool;
  options.dead_letters = settings.dead_letters;
  options.read_only = true;
  auto opened = spool::Spool::open(std::move(options));
  if (opened) return *std::move(opened);
  const Exit exit = opened.error().code == Code::kDenied ? kDenied : kFailed;
  return Trouble{exit, opened.error().message, 0, {}};
}

std::string integration_name(const spool::CursorState& cursor, const Settings& settings) {
  if (cursor.name.starts_with(kFileCursor)) return cursor.name.substr(kFileCursor.size());
  if (!cursor.name.starts_with(kApiCursor)) return cursor.name;
  const std::string id = cursor.name.substr(kApiCursor.size());
  std::error_code unreadable;  // counts as not there: the id has to do
  if (!std::filesystem::exists(settings.state_dir / "integrations.json", unreadable)) return id;
  if (const auto store = IntegrationStore::open(settings.state_dir)) {
    for (const Integration& integration : (*store)->list()) {
      if (integration.id == id) return integration.name;
    }
  }
  return id;
}

Answer<spool::CursorState> offline_cursor(const spool::Spool& spool, const Settings& settings,
                                          const std::string& name) {
  const std::vector<spool::CursorState> cursors = spool.cursors();
  if (name.empty() && cursors.size() == 1) return cursors.front();
  std::string names;
  for (const spool::CursorState& cursor : cursors) {
    const std::string known = integration_name(cursor, settings);
    if (known == name || cursor.name == std::string(kApiCursor) + name) return cursor;
    names += (names.empty() ? "" : ", ") + known;
  }
  if (cursors.empty()) return Trouble{kFailed, "this spool has no integration", 0, {}};
  if (name.empty()) {
    return Trouble{
        kUsage, "there are several integrations; name one with --integration: " + names, 0, {}};
  }
  return Trouble{kFailed, "there is no integration \"" + name + "\"; there are: " + names, 0, {}};
}

}  // namespace signal_agent::cli
