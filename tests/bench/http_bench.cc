// http_bench: what a request costs in our HTTP server beside an empty epoll responder, and what the
// parsing of an event adds. CPU of the serving process per request (user and system), and the rate
// one core carries. Loopback, generator on the same machine: quote the ratios.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "agent/http/server.h"
#include "agent/ingest/containers.h"
#include "config/base/log.h"
#include "tests/bench/load.h"

namespace signal_agent::bench {
namespace {

constexpr const char* kAnswer =
    R"({"success":true,"accepted":1,"duplicates":0,"rejected":[],"first_seq":100000,"last_seq":100000})";

class Counter final : public ingest::EventSink {
 public:
  void accept(std::size_t, const ingest::Envelope&) override { ++events; }
  void reject(std::size_t, ingest::Rejection) override { std::abort(); }
  std::uint64_t events = 0;
};

/// Serves in this process until killed; `port` goes to the parent through `ready`.
[[noreturn]] void serve(int ready, const http::Handler& handler) {
  http::Router router;
  http::RouteOptions options;
  options.max_body_bytes = 8 * kMiB;
  router.add("POST", "/v1/batch", handler, options);
  http::Server::Options server_options;
  server_options.name = "bench";
  ListenAddress address;
  address.host = "127.0.0.1";
  server_options.listen = {address};
  auto server = http::Server::bind(std::move(server_options), std::move(router));
  if (!server) std::abort();
  (*server)->start();
  const std::uint16_t port = (*server)->listening()[0].port;
  if (::write(ready, &port, sizeof port) != sizeof port) std::abort();
  while (true) ::pause();
}

struct Row {
  double rate = 0;
  double cpu_us = 0;
  double user_us = 0;  // of it outside the kernel
};

Row measure(const std::function<void(int)>& child, int batch, double seconds) {
  int ready[2];
  if (::pipe(ready) != 0) std::abort();
  const pid_t pid = ::fork();
  if (pid == 0) {
    child(ready[1]);
    std::_Exit(0);
  }
  std::uint16_t port = 0;
  if (::read(ready[0], &port, sizeof port) != sizeof port) std::abort();
  LoadOptions options;
  options.address = "127.0.0.1:" + std::to_string(port);
  options.batch = batch;
  options.seconds = seconds;
  const LoadResult result = run_load(options);
  ::kill(pid, SIGKILL);
  rusage usage{};
  ::wait4(pid, nullptr, 0, &usage);
  ::close(ready[0]);
  ::close(ready[1]);
  if (result.errors > 0 || !result.failure.empty()) {
    std::fprintf(stderr, "the load failed: %llu errors, status %d %s\n",
                 static_cast<unsigned long long>(result.errors), result.last_error_status,
                 result.failure.c_str());
    std::exit(1);
  }
  const auto us_per_request = [&](const timeval& time) {
    return (static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_usec)) /
           static_cast<double>(result.requests);
  };
  const double user_us = us_per_request(usage.ru_utime);
  return {static_cast<double>(result.requests) / result.seconds,
          user_us + us_per_request(usage.ru_stime), user_us};
}

void run(double seconds) {
  const auto respond = [](http::Responder responder) {
    http::Response response;
    response.body = kAnswer;
    responder.send(std::move(response));
  };
  const auto empty = [](int ready) {
    std::uint16_t port = 0;
    const int listener = listen_empty(port);
    if (::write(ready, &port, sizeof port) != sizeof port) std::abort();
    serve_empty(listener);
  };
  const auto inline_answer = [&](int ready) {
    serve(ready, [&](http::Request, http::Responder responder) { respond(std::move(responder)); });
  };
  const auto parsed = [&](int ready) {
    auto parser = std::make_shared<ingest::BodyParser>();
    serve(ready, [&, parser](http::Request request, http::Responder responder) {
      Counter counter;
      const auto refused = parser->parse(request.body, {}, counter);
      if (refused || counter.events == 0) std::abort();
      respond(std::move(responder));
    });
  };
  for (const int batch : {1, 100}) {
    std::printf("%d event%s of 1,024 bytes per request, 64 connections\n", batch,
                batch > 1 ? "s" : "");
    std::printf("| %-34s | %12s | %5s | %14s | %7s |\n", "server", "requests/s", "ratio",
                "us CPU/request", "user us");
    const Row reference = measure(empty, batch, seconds);
    const auto print = [&](const char* name, const Row& row) {
      std::printf("| %-34s | %12.0f | %5.2f | %14.2f | %7.2f |\n", name, row.rate,
                  row.rate / reference.rate, row.cpu_us, row.user_us);
    };
    print("empty epoll responder", reference);
    print("our server, answered at once", measure(inline_answer, batch, seconds));
    print("our server, events parsed", measure(parsed, batch, seconds));
  }
}

}  // namespace
}  // namespace signal_agent::bench

int main(int argc, char** argv) {
  signal_agent::bench::run(argc > 1 ? std::atof(argv[1]) : 3);
}
