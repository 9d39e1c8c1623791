#include "agent/admin/metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <utility>
#include <vector>

#include "agent/admin/status.h"
#include "kafka/failure.h"

namespace signal_agent::admin {

namespace {

using Labels = std::vector<std::pair<std::string_view, std::string_view>>;

std::string number_text(double value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return {text.data(), end};
}

/// Writes families one after the other: HELP and TYPE once, then the samples.
class Page {
 public:
  explicit Page(Exposition exposition) : open_(exposition == Exposition::kOpenMetrics) {}

  /// Starts a family; `name` of a counter ends in _total.
  void family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    std::string_view announced = name;
    if (open_ && type == "counter") announced.remove_suffix(std::string_view("_total").size());
    line("# HELP ", announced, help);
    line("# TYPE ", announced, type);
  }
  void counter(std::string_view name, std::string_view help) { family(name, "counter", help); }
  void gauge(std::string_view name, std::string_view help) { family(name, "gauge", help); }

  void sample(const Labels& labels, double value) { sample("", labels, number_text(value)); }
  void sample(const Labels& labels, std::uint64_t value) {
    sample("", labels, std::to_string(value));
  }
  void sample(const Labels& labels, std::int64_t value) {
    sample("", labels, std::to_string(value));
  }
  void sample(const Labels& labels, bool value) { sample("", labels, value ? "1" : "0"); }

  /// Buckets of powers of two of the histogram's unit, `per_unit` of the metric's base unit each.
  /// What lies below the first bound or above the last one is folded into its neighbour.
  void histogram(const Labels& labels, const Histogram::Snapshot& values, double per_unit,
                 int first_bound, int last_bound) {
    std::uint64_t below = 0;
    for (int i = 0; i < Histogram::kBuckets; ++i) {
      below += values.counts[static_cast<std::size_t>(i)];
      if (i < first_bound || i > last_bound) continue;
      const double bound = static_cast<double>((std::uint64_t{1} << i) - (per_unit == 1 ? 1 : 0));
      Labels with_bound = labels;
      const std::string text = number_text(bound * per_unit);
      with_bound.emplace_back("le", text);
      sample("_bucket", with_bound, std::to_string(below));
    }
    Labels with_bound = labels;
    with_bound.emplace_back("le", "+Inf");
    sample("_bucket", with_bound, std::to_string(values.count));
    sample("_sum", labels, number_text(static_cast<double>(values.sum) * per_unit));
    sample("_count", labels, std::to_string(values.count));
  }

  std::string finish() {
    if (open_) text_ += "# EOF\n";
    return std::move(text_);
  }

 private:
  void line(std::string_view what, std::string_view name, std::string_view rest) {
    text_.append(what).append(name).append(" ").append(rest).append("\n");
  }

  void sample(std::string_view suffix, const Labels& labels, const std::string& value) {
    text_.append(name_).append(suffix);
    char separator = '{';
    for (const auto& [label, text] : labels) {
      text_ += std::exchange(separator, ',');
      text_.append(label).append("=\"");
      for (const char c : text) {
        if (c == '\\' || c == '"') text_ += '\\';
        if (c == '\n') {
          text_ += "\\n";
        } else {
          text_ += c;
        }
      }
      text_ += '"';
    }
    if (!labels.empty()) text_ += '}';
    text_.append(" ").append(value).append("\n");
  }

  const bool open_;
  std::string name_;
  std::string text_;
};

double seconds(std::int64_t milliseconds) {
  return static_cast<double>(milliseconds) / 1000;
}

void render_process(Page& page, const Snapshot& snapshot, const ProcessStats& process) {
  page.gauge("signal_agent_build_info", "Constant 1; the version is the label.");
  page.sample({{"version", snapshot.version}}, true);
  page.counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.");
  page.sample({}, process.cpu_seconds);
  page.gauge("process_resident_memory_bytes", "Resident memory size in bytes.");
  page.sample({}, process.resident_bytes);
  page.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.");
  page.sample({}, process.virtual_bytes);
  page.gauge("process_open_fds", "Number of open file descriptors.");
  page.sample({}, process.open_fds);
  page.gauge("process_max_fds", "Maximum number of open file descriptors.");
  page.sample({}, process.max_fds);
  page.gauge("process_start_time_seconds",
             "Start time of the process since unix epoch in seconds.");
  page.sample({}, seconds(snapshot.started_ms));
}

void render_http(Page& page, const Snapshot& snapshot) {
  const std::array<std::pair<std::string_view, const http::ServerStats*>, 2> listeners{
      {{"intake", &snapshot.intake_http}, {"admin", &snapshot.admin_http}}};
  page.gauge("signal_agent_http_connections", "Connections open now, by listener.");
  for (const auto& [name, stats] : listeners) page.sample({{"listener", name}}, stats->connections);
  page.counter("signal_agent_http_accepted_connections_total",
               "Connections accepted, by listener.");
  for (const auto& [name, stats] : listeners) {
    page.sample({{"listener", name}}, stats->connections_total);
  }
  page.counter("signal_agent_http_connections_refused_total",
               "Connections closed at once because too many were open, by listener.");
  for (const auto& [name, stats] : listeners) {
    page.sample({{"listener", name}}, stats->connections_refused);
  }
  page.counter("signal_agent_http_responses_total", "Answers by listener and status class.");
  static constexpr std::array<std::string_view, 6> kClasses{"", "1xx", "2xx", "3xx", "4xx", "5xx"};
  for (const auto& [name, stats] : listeners) {
    for (std::size_t i = 2; i < kClasses.size(); ++i) {
      page.sample({{"listener", name}, {"class", kClasses[i]}}, stats->responses_by_class[i]);
    }
  }
  page.gauge("signal_agent_http_buffered_body_bytes", "Request bodies in memory, by listener.");
  for (const auto& [name, stats] : listeners) {
    page.sample({{"listener", name}}, stats->buffered_body_bytes);
  }
}

void render_intake(Page& page, const Snapshot& snapshot) {
  const ingest::IngestStats& intake = snapshot.intake;
  page.counter("signal_agent_events_received_total", "Events seen in well-formed requests.");
  page.sample({}, intake.received_events);
  page.counter("signal_agent_events_accepted_total", "Events stored, synced and answered.");
  page.sample({}, intake.accepted_events);
  page.counter("signal_agent_events_duplicate_total",
               "Events answered as duplicates of a message id seen before.");
  page.sample({}, intake.duplicate_events);
  page.counter("signal_agent_events_rejected_total", "Events refused as invalid, by code.");
  for (const auto& [code, count] : intake.rejected_by_code) page.sample({{"code", code}}, count);
  page.counter("signal_agent_requests_refused_total", "Intake requests refused whole, by code.");
  for (const auto& [code, count] : intake.refused_by_code) page.sample({{"code", code}}, count);
  page.counter("signal_agent_received_bytes_total", "Bytes of intake request bodies.");
  page.sample({}, intake.received_bytes);
  page.family("signal_agent_request_duration_seconds", "histogram",
              "Intake requests, from complete head to answer.");
  page.histogram({}, intake.request_us, 1e-6, 7, 25);
}

void render_spool(Page& page, const Snapshot& snapshot, const Settings& settings) {
  page.gauge("signal_agent_spool_state", "1 for the state the spool is in.");
  for (const std::string_view state : {"opening", "open", "failed"}) {
    page.sample({{"state", state}}, snapshot.spool_state == state);
  }
  page.gauge("signal_agent_intake_open", "1 while intake takes events.");
  page.sample({}, snapshot.spool && snapshot.spool->intake == spool::IntakeState::kOpen &&
                      !snapshot.stopping);
  page.gauge("signal_agent_spool_limit_bytes", "spool.max_bytes.");
  page.sample({}, settings.spool.max_bytes);
  if (!snapshot.spool) return;
  const spool::SpoolStats& spool = *snapshot.spool;
  page.gauge("signal_agent_spool_bytes",
             "Bytes counted against spool.max_bytes: events kept and dead letters.");
  page.sample({}, spool.logical_bytes);
  page.gauge("signal_agent_spool_disk_bytes", "Bytes the spool takes on disk.");
  page.sample({}, spool.disk_bytes);
  page.gauge("signal_agent_disk_free_bytes", "Free bytes of the spool's file system.");
  page.sample({}, spool.disk_free_bytes);
  page.gauge("signal_agent_disk_reserve_bytes", "spool.min_free_bytes in force.");
  page.sample({}, spool.min_free_bytes);
  page.gauge("signal_agent_spool_first_sequence", "Sequence number of the oldest event kept.");
  page.sample({}, spool.first.value);
  page.gauge("signal_agent_spool_last_sequence", "Last sequence number on disk.");
  page.sample({}, spool.durable_end.value);
  page.counter("signal_agent_spool_events_total", "Events stored since the spool was made.");
  page.sample({}, spool.events_stored);
  page.counter("signal_agent_spool_dropped_events_total",
               "Events that drop_oldest gave up while no integration held them.");
  page.sample({}, spool.dropped);
  page.counter("signal_agent_commits_total", "Synced writes of the spool.");
  page.sample({}, spool.commits);
  page.gauge("signal_agent_recovered_missing_events",
             "Events the last recovery knew of and did not find.");
  page.sample({}, spool.recovered_missing);
  page.family("signal_agent_commit_duration_seconds", "histogram", "One synced write.");
  page.histogram({}, spool.commit_us, 1e-6, 7, 25);
  page.family("signal_agent_commit_batch_events", "histogram", "Events in one synced write.");
  page.histogram({}, spool.commit_events, 1, 0, 17);
}

void render_books(Page& page, const Snapshot& snapshot) {
  const auto each = [&](auto value) {
    for (const IntegrationView& view : snapshot.integrations) {
      if (view.cursor) page.sample({{"integration", view.integration.name}}, value(*view.cursor));
    }
  };
  using Cursor = spool::CursorState;
  page.counter("signal_agent_events_stored_total",
               "Events stored since this integration's cursor began.");
  each([](const Cursor& cursor) { return cursor.books.stored; });
  page.counter("signal_agent_events_acked_total", "Events Kafka reported as stored.");
  each([](const Cursor& cursor) { return cursor.books.acked; });
  page.counter("signal_agent_events_filtered_total",
               "Events held back by consent or meant for another integration.");
  each([](const Cursor& cursor) { return cursor.books.filtered; });
  page.counter("signal_agent_events_discarded_total",
               "Events given up by an operator or a configured limit.");
  each([](const Cursor& cursor) { return cursor.books.discarded; });
  page.counter("signal_agent_events_damaged_total", "Events that could not be read from disk.");
  each([](const Cursor& cursor) { return cursor.books.damaged; });
  page.gauge("signal_agent_events_buried", "Dead letters lying now.");
  each([](const Cursor& cursor) { return cursor.books.buried; });
  page.gauge("signal_agent_events_pending", "Events stored and not settled.");
  each([](const Cursor& cursor) { return cursor.books.pending; });
  page.gauge("signal_agent_balance_difference",
             "Stored minus acked, filtered, discarded, buried, damaged and pending; always 0.");
  each([](const Cursor& cursor) { return balance_difference(cursor.books); });
  page.gauge("signal_agent_dead_letter_bytes", "Bytes of dead letters.");
  each([](const Cursor& cursor) { return cursor.dead_letter_bytes; });
  page.gauge("signal_agent_oldest_pending_age_seconds",
             "Age of the oldest event not settled; 0 when there is none.");
  each([&](const Cursor& cursor) {
    return cursor.oldest_pending_ms == 0
               ? 0.0
               : std::max(seconds(snapshot.now_ms - cursor.oldest_pending_ms), 0.0);
  });
}

void render_delivery(Page& page, const Snapshot& snapshot) {
  const auto each = [&](auto sample) {
    for (const IntegrationView& view : snapshot.integrations) {
      if (view.delivery) sample(std::string_view(view.integration.name), *view.delivery);
    }
  };
  const auto each_value = [&](auto value) {
    each([&](std::string_view name, const forward::ForwarderStatus& delivery) {
      page.sample({{"integration", name}}, value(delivery));
    });
  };
  const auto each_count = [&](std::string_view label, auto counts) {
    each([&](std::string_view name, const forward::ForwarderStatus& delivery) {
      for (const auto& [key, count] : counts(delivery)) {
        page.sample({{"integration", name}, {label, key}}, count);
      }
    });
  };
  using Status = forward::ForwarderStatus;

  page.gauge("signal_agent_delivery_state", "1 for the state the integration is in.");
  static constexpr std::array<std::string_view, 11> kStates{
      "starting", "running", "waiting",  "halted",   "probing",          "releasing",
      "paused",   "stopped", "disabled", "orphaned", "spool_unavailable"};
  for (const IntegrationView& view : snapshot.integrations) {
    const std::string_view now = integration_state(view, snapshot);
    for (const std::string_view state : kStates) {
      page.sample({{"integration", view.integration.name}, {"state", state}}, state == now);
    }
  }
  page.gauge("signal_agent_delivery_failure", "1 for the failure an integration has now.");
  each([&](std::string_view name, const Status& delivery) {
    if (delivery.failure) {
      page.sample({{"integration", name}, {"code", delivery.failure->code}}, true);
    }
  });
  page.counter("signal_agent_events_sent_total",
               "Events handed to the Kafka library since the process started, repeats included.");
  each_value([](const Status& delivery) { return delivery.sent_total; });
  page.counter("signal_agent_acked_bytes_total", "Bytes of events Kafka reported as stored.");
  each_value([](const Status& delivery) { return delivery.acked_bytes_total; });
  page.counter("signal_agent_events_late_total",
               "Events stored behind younger ones after a shared refusal.");
  each_value([](const Status& delivery) { return delivery.late_total; });
  page.gauge("signal_agent_in_flight_events", "Events in the Kafka library now.");
  each_value([](const Status& delivery) { return delivery.in_flight_events; });
  page.gauge("signal_agent_in_flight_bytes", "Bytes in the Kafka library now.");
  each_value([](const Status& delivery) { return delivery.in_flight_bytes; });
  page.gauge("signal_agent_window_events", "Events allowed in the Kafka library now.");
  each_value([](const Status& delivery) { return delivery.window_events; });
  page.gauge("signal_agent_window_bytes", "Bytes allowed in the Kafka library now.");
  each_value([](const Status& delivery) { return delivery.window_bytes; });
  page.gauge("signal_agent_kafka_brokers_up", "Brokers connected now.");
  each_value([](const Status& delivery) { return static_cast<std::int64_t>(delivery.brokers_up); });
  page.gauge("signal_agent_last_delivery_timestamp_seconds",
             "When Kafka last reported an event as stored; 0 before the first.");
  each_value([](const Status& delivery) { return seconds(delivery.last_ack_ms); });
  page.counter("signal_agent_kafka_errors_total", "Failed deliveries by code.");
  each_count("code", [](const Status& delivery) { return delivery.failed_by_code; });
  page.counter("signal_agent_burials_total",
               "Events put into the dead letters since the process started, by reason.");
  each_count("reason", [](const Status& delivery) { return delivery.buried_by_reason; });
  page.counter("signal_agent_producer_rebuilds_total",
               "Kafka producers replaced, by reason; each may repeat one window.");
  each_count("reason", [](const Status& delivery) { return delivery.rebuilds_by_reason; });
  page.family("signal_agent_delivery_latency_seconds", "histogram",
              "From accepted to acknowledged by Kafka.");
  each([&](std::string_view name, const Status& delivery) {
    page.histogram({{"integration", name}}, delivery.delivery_ms, 1e-3, 0, 22);
  });
}

void render_reload(Page& page, const Snapshot& snapshot) {
  page.gauge("signal_agent_config_reload_success",
             "1 when the last reload succeeded, or none was.");
  page.sample({}, snapshot.reload_error.empty());
  page.gauge("signal_agent_config_reload_timestamp_seconds",
             "When the configuration was last read.");
  page.sample({}, seconds(snapshot.reloaded_ms != 0 ? snapshot.reloaded_ms : snapshot.started_ms));
}

}  // namespace

Exposition exposition_for(std::string_view accept) {
  return accept.find("application/openmetrics-text") == std::string_view::npos
             ? Exposition::kPrometheus
             : Exposition::kOpenMetrics;
}

std::string_view content_type_of(Exposition exposition) {
  return exposition == Exposition::kOpenMetrics
             ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
             : "text/plain; version=0.0.4; charset=utf-8";
}

ProcessStats read_process_stats() {
  ProcessStats stats;
  std::ifstream statm("/proc/self/statm");
  std::uint64_t total_pages = 0;
  std::uint64_t resident_pages = 0;
  const auto page_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  if (statm >> total_pages >> resident_pages) {
    stats.virtual_bytes = total_pages * page_bytes;
    stats.resident_bytes = resident_pages * page_bytes;
  }
  rusage usage{};
  if (::getrusage(RUSAGE_SELF, &usage) == 0) {
    const auto in_seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    stats.cpu_seconds = in_seconds(usage.ru_utime) + in_seconds(usage.ru_stime);
  }
  std::error_code unreadable;
  for (std::filesystem::directory_iterator entry("/proc/self/fd", unreadable), end;
       !unreadable && entry != end; entry.increment(unreadable)) {
    ++stats.open_fds;
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) stats.max_fds = limit.rlim_cur;
  return stats;
}

std::string render_metrics(const Snapshot& snapshot, const Settings& settings,
                           const ProcessStats& process, Exposition exposition) {
  Page page(exposition);
  render_process(page, snapshot, process);
  render_http(page, snapshot);
  render_intake(page, snapshot);
  render_spool(page, snapshot, settings);
  render_books(page, snapshot);
  render_delivery(page, snapshot);
  render_reload(page, snapshot);
  return page.finish();
}

}  // namespace signal_agent::admin
