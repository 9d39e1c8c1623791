// spool info|list|cat|verify|export: what lies on disk, read-only.
#include <algorithm>

#include "agent/cli/commands.h"
#include "agent/cli/offline.h"
#include "agent/cli/sender.h"
#include "agent/shown.h"

namespace signal_agent::cli {

namespace {

/// Events from `from` on until `visit` says false; damage goes to `damaged`.
std::optional<Trouble> each_event(
    const spool::Spool& spool, std::uint64_t from,
    const std::function<bool(const spool::EventView&)>& visit,
    const std::function<void(const spool::ReadBatch::Damaged&)>& damaged) {
  spool::Seq next = std::max(spool::Seq{from}, spool.stats().first);
  while (next <= spool.durable_end()) {
    const auto batch = spool.read(next, {});
    if (!batch) return Trouble{kFailed, batch.error().message, 0, {}};
    for (const spool::ReadBatch::Damaged& damage : batch->damaged) damaged(damage);
    for (const spool::EventView& event : batch->events) {
      if (!visit(event)) return std::nullopt;
    }
    if (batch->next <= next) break;
    next = batch->next;
  }
  return std::nullopt;
}

void tell_damage(Terminal& terminal, const spool::ReadBatch::Damaged& damage) {
  terminal.complain("events " + std::to_string(damage.range.first.value) + " to " +
                    std::to_string(damage.range.last.value) + " are damaged (" +
                    counted(damage.count, "event") + "): " + printable(damage.what));
}

Json cursor_json(const spool::CursorState& cursor, const Settings& settings) {
  const spool::Books& books = cursor.books;
  return {{"integration", integration_name(cursor, settings)},
          {"cursor", cursor.name},
          {"begin", cursor.begin.value},
          {"mark", cursor.mark.value},
          {"holds_disk", cursor.holds_disk},
          {"books",
           {{"stored", books.stored},
            {"acked", books.acked},
            {"filtered", books.filtered},
            {"discarded", books.discarded},
            {"damaged", books.damaged},
            {"buried", books.buried},
            {"pending", books.pending}}}};
}

Json info_json(const spool::SpoolStats& stats, const Settings& settings) {
  Json cursors = Json::array();
  for (const spool::CursorState& cursor : stats.cursors) {
    cursors.push_back(cursor_json(cursor, settings));
  }
  return {{"path", (settings.state_dir / "spool").string()},
          {"id", stats.spool_id},
          {"first_seq", stats.first.value},
          {"last_seq", stats.durable_end.value},
          {"logical_bytes", stats.logical_bytes},
          {"max_bytes", settings.spool.max_bytes},
          {"disk_bytes", stats.disk_bytes},
          {"disk_free_bytes", stats.disk_free_bytes},
          {"events_stored", stats.events_stored},
          {"dropped", stats.dropped},
          {"recovered_missing", stats.recovered_missing},
          {"cursors", std::move(cursors)}};
}

void print_info(Terminal& terminal, const spool::SpoolStats& stats, const Settings& settings) {
  terminal.out << "spool " << stats.spool_id << " in "
               << printable((settings.state_dir / "spool").string()) << "\n"
               << "events " << grouped(stats.first.value) << " to "
               << grouped(stats.durable_end.value) << ", " << grouped(stats.events_stored)
               << " stored since it was made";
  if (stats.dropped > 0)
    terminal.out << ", " << grouped(stats.dropped) << " dropped while no integration held them";
  terminal.out << "\n"
               << rough_bytes(stats.logical_bytes) << " of "
               << rough_bytes(settings.spool.max_bytes) << ", " << rough_bytes(stats.disk_bytes)
               << " on disk, " << rough_bytes(stats.disk_free_bytes) << " free\n";
  Table table({"INTEGRATION", "MARK", "STORED", "ACKED", "FILTERED", "DISCARDED", "DEAD LETTERS",
               "PENDING"});
  for (const spool::CursorState& cursor : stats.cursors) {
    const spool::Books& books = cursor.books;
    table.add({integration_name(cursor, settings), grouped(cursor.mark.value),
               grouped(books.stored), grouped(books.acked), grouped(books.filtered),
               grouped(books.discarded), grouped(books.buried), grouped(books.pending)});
  }
  if (table.empty()) return;
  terminal.out << "\n";
  table.print(terminal);
}

/// Opens the spool and hands it over; the exit code of what went wrong otherwise.
int with_spool(Invocation& invocation,
               const std::function<int(const spool::Spool&, const Settings&)>& act) {
  const auto settings = invocation.settings();
  if (!settings) return kConfiguration;
  const auto spool = open_offline(*settings);
  if (!spool) return report(invocation.terminal, spool.trouble());
  return act(**spool, *settings);
}

}  // namespace

int spool_info_command(Invocation& invocation) {
  return with_spool(invocation, [&](const spool::Spool& spool, const Settings& settings) {
    const spool::SpoolStats stats = spool.stats();
    if (invocation.json) {
      invocation.terminal.out << json_text(info_json(stats, settings), 2) << "\n";
    } else {
      print_info(invocation.terminal, stats, settings);
    }
    return static_cast<int>(kOk);
  });
}

int spool_list_command(Invocation& invocation, const SpoolOptions& options) {
  return with_spool(invocation, [&](const spool::Spool& spool, const Settings&) -> int {
    Terminal& terminal = invocation.terminal;
    std::uint64_t shown = 0;
    const auto line = [&](const std::string& seq, const std::string& accepted,
                          const std::string& type, const std::string& bytes,
                          const std::string& name) {
      const auto padded = [](const std::string& text, std::size_t width, bool to_the_right) {
        const std::string padding(width - std::min(width, text.size()), ' ');
        return to_the_right ? padding + text : text + padding;
      };
      return padded(seq, 12, true) + "  " + padded(accepted, 24, false) + "  " +
             padded(type, 8, false) + "  " + padded(bytes, 9, true) + "  " + name;
    };
    if (!invocation.json) {
      terminal.out << terminal.paint("bold", line("SEQ", "ACCEPTED", "TYPE", "BYTES", "NAME"))
                   << "\n";
    }
    const auto trouble = each_event(
        spool, options.from,
        [&](const spool::EventView& event) {
          if (invocation.json) {
            terminal.out << json_text(
                                {{"seq", event.seq.value},
                                 {"accepted_at", rfc3339(event.accepted_ms)},
                                 {"type", spool::event_type_name(event.type)},
                                 {"name", event.has_name ? Json(event.name) : Json()},
                                 {"key", event.key_kind == spool::KeyKind::kNone ? Json()
                                                                                 : Json(event.key)},
                                 {"size_bytes", event.value.size()}})
                         << "\n";
          } else {
            terminal.out << line(std::to_string(event.seq.value), rfc3339(event.accepted_ms),
                                 std::string(spool::event_type_name(event.type)),
                                 std::to_string(event.value.size()),
                                 event.has_name ? printable(event.name) : "-")
                         << "\n";
          }
          ++shown;
          return static_cast<bool>(terminal.out) && (options.limit == 0 || shown < options.limit);
        },
        [&](const spool::ReadBatch::Damaged& damage) { tell_damage(terminal, damage); });
    return trouble ? report(terminal, *trouble) : kOk;
  });
}

int spool_cat_command(Invocation& invocation, const SpoolOptions& options) {
  return with_spool(invocation, [&](const spool::Spool& spool, const Settings&) -> int {
    Terminal& terminal = invocation.terminal;
    bool found = false;
    const auto trouble = each_event(
        spool, options.seq,
        [&](const spool::EventView& event) {
          found = event.seq.value == options.seq;
          if (found) terminal.out << event.value << "\n";
          return false;
        },
        [&](const spool::ReadBatch::Damaged& damage) { tell_damage(terminal, damage); });
    if (trouble) return report(terminal, *trouble);
    if (found) return kOk;
    terminal.complain(
        "event " + std::to_string(options.seq) +
        " is not among the events kept; it may be delivered and trimmed, or lie in the "
        "dead letters");
    return kFailed;
  });
}

int spool_verify_command(Invocation& invocation) {
  return with_spool(invocation, [&](const spool::Spool& spool, const Settings&) -> int {
    Terminal& terminal = invocation.terminal;
    std::uint64_t events = 0;
    std::uint64_t bytes = 0;
    std::uint64_t damaged = 0;
    auto trouble = each_event(
        spool, 0,
        [&](const spool::EventView& event) {
          ++events;
          bytes += event.value.size();
          return true;
        },
        [&](const spool::ReadBatch::Damaged& damage) {
          damaged += damage.count;
          if (!invocation.json) tell_damage(terminal, damage);
        });
    std::uint64_t letters = 0;
    for (const spool::CursorState& cursor : spool.cursors()) {
      spool::DeadQuery query;
      for (;;) {
        const auto page = spool.dead_letters(cursor.id, query);
        if (!page) {
          trouble = Trouble{kFailed, page.error().message, 0, {}};
          break;
        }
        letters += page->size();
        if (page->size() < query.limit) break;
        query.after = page->back().seq;
      }
    }
    if (trouble) return report(terminal, *trouble);
    if (invocation.json) {
      terminal.out << json_text({{"events", events},
                                 {"bytes", bytes},
                                 {"dead_letters", letters},
                                 {"damaged_events", damaged}})
                   << "\n";
    } else {
      terminal.out << counted(events, "event") << " (" << rough_bytes(bytes) << ") and "
                   << counted(letters, "dead letter") << " read, " << grouped(damaged)
                   << " damaged.\n";
    }
    return damaged == 0 ? kOk : kFindings;
  });
}

int spool_export_command(Invocation& invocation, const SpoolOptions& options) {
  return with_spool(invocation, [&](const spool::Spool& spool, const Settings&) -> int {
    Terminal& terminal = invocation.terminal;
    std::uint64_t count = 0;
    const auto trouble = each_event(
        spool, options.from,
        [&](const spool::EventView& event) {
          if (event.value.find('\n') == std::string_view::npos) {
            terminal.out << event.value << "\n";
          } else {  // in the form of a dead letter, which keeps the bytes; `send` takes it
            terminal.out << json_text({{std::string(kExportMark), 1},
                                       {"seq", event.seq.value},
                                       {"event", event.value}})
                         << "\n";
          }
          ++count;
          return static_cast<bool>(terminal.out) && (options.limit == 0 || count < options.limit);
        },
        [&](const spool::ReadBatch::Damaged& damage) { tell_damage(terminal, damage); });
    terminal.out.flush();
    if (trouble) return report(terminal, *trouble);
    if (!terminal.out) {
      terminal.complain("the output could not be written");
      return kFailed;
    }
    terminal.err << counted(count, "event") << " exported\n";
    return kOk;
  });
}

}  // namespace signal_agent::cli
