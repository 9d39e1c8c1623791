// DeadStream: the dead letters of one kind that are to be sent, in sequence order, read in pages.
// The second source of the forwarder. One thread.
#pragma once

#include <cstddef>
#include <set>
#include <vector>

#include "config/base/result.h"
#include "spool/spool.h"

namespace signal_agent::forward {

class DeadStream {
 public:
  /// `which` restricts by `self_healing` or `replaying`.
  DeadStream(const spool::Spool& spool, spool::CursorId cursor, spool::DeadQuery which);

  /// The next one, null when there is none (any more). Those in `skip` are on their way already.
  /// It was read ahead: whether it still lies there Spool::claim() says.
  Result<const spool::DeadLetter*> peek(const std::set<std::uint64_t>& skip);
  spool::DeadLetter take();
  /// Begins again with the oldest, for there may be new ones.
  void restart();
  /// Begins again with the oldest: what was taken and is not settled comes once more. There are no
  /// new ones, so a stream in which nothing was found is not read again: that is a walk over every
  /// dead letter of the integration.
  void rewind();
  /// It is settled: what was read ahead of it is no longer true.
  void forget(spool::Seq seq);

 private:
  const spool::Spool& spool_;
  spool::CursorId cursor_;
  spool::DeadQuery which_;
  std::vector<spool::DeadLetter> page_;
  std::size_t next_ = 0;
  bool finished_ = false;
  bool empty_ = false;  // read from the oldest on, and nothing was there
};

}  // namespace signal_agent::forward
