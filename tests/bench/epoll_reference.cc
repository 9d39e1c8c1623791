// signal_agent_epoll_reference: an empty responder, to know what the machine's loopback allows.
// Prints its port and serves until it is killed or its standard input ends.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <thread>

#include "tests/bench/load.h"

int main() {
  std::uint16_t port = 0;
  const int listener = signal_agent::bench::listen_empty(port);
  std::printf("listening on 127.0.0.1 port %u\n", static_cast<unsigned>(port));
  std::fflush(stdout);
  std::thread([] {
    char byte = 0;
    while (::read(STDIN_FILENO, &byte, 1) > 0) {
    }
    std::_Exit(0);
  }).detach();
  signal_agent::bench::serve_empty(listener);
}
