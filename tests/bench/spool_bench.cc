// The spool against an append-and-fdatasync log of its own, in the same run on the same disk.
//
//   spool_bench [--dir D] [--seconds S] [--waiting-gb N]
//
// Prints: commits of 1, 16, 128 and 1024 events of 1 KiB, alternating spool and log, with what each
// wrote to the device per payload byte while keeping up; the same log behind a thread of its own,
// as the spool's writer is; bytes per event on disk; reopen time and anonymous memory after kill -9
// with N GB waiting.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <random>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "spool/spool.h"

namespace signal_agent::spool {
namespace {

using std::chrono::steady_clock;

double seconds_since(steady_clock::time_point begun) {
  return std::chrono::duration<double>(steady_clock::now() - begun).count();
}

std::uint64_t field(const char* path, const std::string& name) {
  std::ifstream file(path);
  std::string word;
  while (file >> word)
    if (word == name) {
      std::uint64_t value = 0;
      file >> value;
      return value;
    }
  return 0;
}

/// 1 KiB, JSON-like: compresses to about a third.
std::string payload(std::mt19937& random) {
  std::string text = R"({"type":"track","event":"Order Completed","userId":"u)" +
                     std::to_string(random()) + R"(","properties":{)";
  while (text.size() < 1000)
    text += "\"field" + std::to_string(random() % 20) + "\":\"" + std::to_string(random()) + "\",";
  text.resize(1021);
  return text + "\"}}";
}

std::unique_ptr<Spool> open(const std::filesystem::path& dir) {
  Spool::Options options;
  options.dir = dir;
  options.limits.max_bytes = 1ULL << 40;
  options.limits.min_free_bytes = 0;
  auto opened = Spool::open(options);
  if (!opened) {
    std::fprintf(stderr, "%s\n", opened.error().message.c_str());
    std::exit(1);
  }
  return std::move(opened).value();
}

AppendBatch batch_of(const std::vector<std::string>& payloads, std::size_t size,
                     std::size_t& next) {
  AppendBatch batch;
  for (std::size_t i = 0; i < size; ++i) {
    NewEvent event;
    event.accepted_ms = 1'700'000'000'000;
    event.key_kind = KeyKind::kUser;
    event.key = "user-1";
    event.value = payloads[next++ % payloads.size()];
    batch.add(event);
  }
  return batch;
}

Appended append(Spool& spool, AppendBatch batch) {
  std::promise<Result<Appended>> answered;
  auto answer = answered.get_future();
  spool.append(std::move(batch), [&](Result<Appended> result) { answered.set_value(result); });
  auto result = answer.get();
  if (!result) {
    std::fprintf(stderr, "append: %s\n", result.error().message.c_str());
    std::exit(1);
  }
  return *result;
}

struct Rate {
  double events_per_second = 0;
  double device_bytes_per_byte = 0;
};

/// Between its making and rate().
class Meter {
 public:
  Rate rate(std::uint64_t events) const {
    const auto count = static_cast<double>(events);
    const auto written = static_cast<double>(field("/proc/self/io", "write_bytes:") - written_);
    return {count / seconds_since(begun_), written / (count * 1024)};
  }
  double seconds() const { return seconds_since(begun_); }

 private:
  const std::uint64_t written_ = field("/proc/self/io", "write_bytes:");
  const steady_clock::time_point begun_ = steady_clock::now();
};

/// An append-and-fdatasync log.
class Log {
 public:
  explicit Log(std::filesystem::path path)
      : path_(std::move(path)),
        file_(::open(path_.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0640)) {}
  ~Log() {
    ::close(file_);
    std::filesystem::remove(path_);
  }

  void append(const std::vector<std::string>& payloads, std::size_t size, std::size_t& next) {
    buffer_.clear();
    for (std::size_t i = 0; i < size; ++i) {
      buffer_.append(16, 'h');
      buffer_ += payloads[next++ % payloads.size()];
    }
    if (::write(file_, buffer_.data(), buffer_.size()) < 0 || ::fdatasync(file_) != 0) std::exit(1);
  }

 private:
  const std::filesystem::path path_;
  const int file_;
  std::string buffer_;
};

Rate log_rate(const std::filesystem::path& path, const std::vector<std::string>& payloads,
              std::size_t size, double seconds) {
  Log log(path);
  std::size_t next = 0;
  std::uint64_t events = 0;
  const Meter meter;
  for (; meter.seconds() < seconds; events += size) log.append(payloads, size, next);
  return meter.rate(events);
}

/// The same, asked for and answered across threads.
Rate log_behind_thread_rate(const std::filesystem::path& path,
                            const std::vector<std::string>& payloads, std::size_t size,
                            double seconds) {
  Log log(path);
  std::size_t next = 0;
  std::uint64_t events = 0;
  std::counting_semaphore<> asked(0);
  std::counting_semaphore<> answered(0);
  bool end = false;
  std::thread writer([&] {
    for (;;) {
      asked.acquire();
      if (end) return;
      log.append(payloads, size, next);
      answered.release();
    }
  });
  const Meter meter;
  for (; meter.seconds() < seconds; events += size) {
    asked.release();
    answered.acquire();
  }
  const Rate rate = meter.rate(events);
  end = true;
  asked.release();
  writer.join();
  return rate;
}

/// Keeps up: every commit is settled with the next.
Rate spool_rate(Spool& spool, CursorId cursor, const std::vector<std::string>& payloads,
                std::size_t size, double seconds) {
  std::size_t next = 0;
  std::uint64_t events = 0;
  const Meter meter;
  while (meter.seconds() < seconds) {
    const Appended appended = append(spool, batch_of(payloads, size, next));
    Settlement settlement;
    settlement.mark = appended.last;
    settlement.acked = size;
    spool.settle(cursor, std::move(settlement), Urgency::kRide, [](Result<void>) {});
    events += size;
  }
  return meter.rate(events);
}

void reopen_with(const std::filesystem::path& dir, double gigabytes,
                 const std::vector<std::string>& payloads) {
  const auto events = static_cast<std::uint64_t>(gigabytes * 1e9 / 1024);
  const pid_t child = fork();
  if (child == 0) {
    auto spool = open(dir);
    if (!spool->attach("waiting", Start::kOldest)) _exit(1);
    std::size_t next = 0;
    for (std::uint64_t done = 0; done < events; done += 1024)
      append(*spool, batch_of(payloads, 1024, next));
    _exit(0);  // no destructor: as good as kill -9
  }
  int status = 0;
  waitpid(child, &status, 0);
  const auto begun = steady_clock::now();
  auto spool = open(dir);
  const double opened = seconds_since(begun);
  const auto stats = spool->stats();
  const std::uint64_t anonymous = field("/proc/self/status", "RssAnon:");
  std::uint64_t read_events = 0;
  const auto draining = steady_clock::now();
  for (Seq from{1}; from <= spool->durable_end() && seconds_since(draining) < 20;) {
    auto read = spool->read(from, {});
    if (!read) std::exit(1);
    read_events += read->events.size();
    from = read->next;
  }
  std::printf(
      "waiting %.1f GB (%llu events): reopen %.3f s, RssAnon %llu kB then %llu kB after reading, "
      "read %.0f events/s, disk bytes per event %.0f\n",
      gigabytes, static_cast<unsigned long long>(stats.events_stored), opened,
      static_cast<unsigned long long>(anonymous),
      static_cast<unsigned long long>(field("/proc/self/status", "RssAnon:")),
      static_cast<double>(read_events) / seconds_since(draining),
      static_cast<double>(stats.logical_bytes) /
          static_cast<double>(std::max<std::uint64_t>(1, stats.events_stored)));
}

int run(int argc, char** argv) {
  std::filesystem::path dir = std::filesystem::temp_directory_path() / "spool-bench";
  double seconds = 2;
  double gigabytes = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--dir") == 0) dir = argv[i + 1];
    if (std::strcmp(argv[i], "--seconds") == 0) seconds = std::atof(argv[i + 1]);
    if (std::strcmp(argv[i], "--waiting-gb") == 0) gigabytes = std::atof(argv[i + 1]);
  }
  log::configure(log::Level::kWarn, log::Format::kLogfmt);
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  std::mt19937 random(1);
  std::vector<std::string> payloads;
  for (int i = 0; i < 4096; ++i) payloads.push_back(payload(random));

  // First, while this process is small: fork and measure what an opening alone takes.
  if (gigabytes > 0) reopen_with(dir / "waiting", gigabytes, payloads);

  std::printf("%8s %14s %14s %7s %7s %16s %14s %14s\n", "events", "spool/s", "log/s", "ratio",
              "target", "threaded log/s", "spool bytes", "log bytes");
  auto spool = open(dir / "spool");
  const CursorId cursor = spool->attach("bench", Start::kOldest)->id;
  const std::pair<std::size_t, double> sizes[] = {{1, 0.9}, {16, 0.8}, {128, 0.5}, {1024, 0.33}};
  for (const auto& [size, target] : sizes) {
    std::vector<double> ratios;
    Rate ours, theirs, threaded;
    for (int round = 0; round < 3; ++round) {
      const Rate log = log_rate(dir / "log", payloads, size, seconds);
      const Rate rate = spool_rate(*spool, cursor, payloads, size, seconds);
      const Rate behind = log_behind_thread_rate(dir / "log", payloads, size, seconds);
      ratios.push_back(rate.events_per_second / log.events_per_second);
      ours.events_per_second += rate.events_per_second / 3;
      ours.device_bytes_per_byte += rate.device_bytes_per_byte / 3;
      theirs.events_per_second += log.events_per_second / 3;
      threaded.events_per_second += behind.events_per_second / 3;
      theirs.device_bytes_per_byte += log.device_bytes_per_byte / 3;
    }
    std::sort(ratios.begin(), ratios.end());
    std::printf("%8zu %14.0f %14.0f %7.2f %7.2f %16.0f %14.2f %14.2f\n", size,
                ours.events_per_second, theirs.events_per_second, ratios[1], target,
                threaded.events_per_second, ours.device_bytes_per_byte,
                theirs.device_bytes_per_byte);
  }
  const Rate kept_up = spool_rate(*spool, cursor, payloads, 128, 3 * seconds);
  std::printf(
      "keeping up at 128: %.0f events/s, device bytes per payload byte %.2f, RssAnon %llu kB\n",
      kept_up.events_per_second, kept_up.device_bytes_per_byte,
      static_cast<unsigned long long>(field("/proc/self/status", "RssAnon:")));
  spool->close();
  spool.reset();
  std::filesystem::remove_all(dir);
  return 0;
}

}  // namespace
}  // namespace signal_agent::spool

int main(int argc, char** argv) {
  return signal_agent::spool::run(argc, argv);
}
