// Claims: what is on its way to Kafka, so that nothing is sent and given up at once. A forwarder
// claims before it sends. The commit that discards or drops holds all claims from its first look at
// them until its outcome is published; whoever wants to change one waits so long. In memory: what
// was on its way in a crash is sent again. Internal to spool/; takes no other lock.
#pragma once

#include <map>
#include <set>

#include "config/base/mutex.h"
#include "spool/event.h"

namespace signal_agent::spool {

class Claims {
 public:
  /// One integration's.
  struct Held {
    Seq sent;               // its events up to here
    std::set<Seq> letters;  // its dead letters
    bool empty() const { return sent == Seq{} && letters.empty(); }
  };

  // --- any thread; waits while a commit holds the claims
  void set_sent(CursorId cursor, Seq sent);
  void add(CursorId cursor, Seq letter);
  void remove(CursorId cursor, Seq letter);
  void remove_letters(CursorId cursor);

  // --- the committer alone
  /// Nothing changes until let_go().
  const Held& hold(CursorId cursor);
  void let_go();
  /// Its letters may end later: the forwarder can outlive the cursor.
  void forget(CursorId cursor);

  // --- any thread
  bool keeps(CursorId cursor);

 private:
  void wait() REQUIRES(mutex_);

  Mutex mutex_;
  CondVar let_go_;
  bool held_ GUARDED_BY(mutex_) = false;
  std::map<CursorId, Held> claims_ GUARDED_BY(mutex_);
};

}  // namespace signal_agent::spool
