#include "spool/claims.h"

namespace signal_agent::spool {

void Claims::wait() {
  while (held_) let_go_.wait(mutex_);
}

void Claims::set_sent(CursorId cursor, Seq sent) {
  Lock lock(mutex_);
  wait();
  claims_[cursor].sent = sent;
}

void Claims::add(CursorId cursor, Seq letter) {
  Lock lock(mutex_);
  wait();
  claims_[cursor].letters.insert(letter);
}

void Claims::remove(CursorId cursor, Seq letter) {
  Lock lock(mutex_);
  wait();
  const auto found = claims_.find(cursor);
  if (found == claims_.end()) return;
  found->second.letters.erase(letter);
  if (found->second.empty()) claims_.erase(found);
}

void Claims::remove_letters(CursorId cursor) {
  Lock lock(mutex_);
  wait();
  const auto found = claims_.find(cursor);
  if (found == claims_.end()) return;
  found->second.letters.clear();
  if (found->second.empty()) claims_.erase(found);
}

bool Claims::keeps(CursorId cursor) {
  Lock lock(mutex_);
  return claims_.contains(cursor);
}

const Claims::Held& Claims::hold(CursorId cursor) {
  Lock lock(mutex_);
  held_ = true;
  return claims_[cursor];
}

void Claims::let_go() {
  Lock lock(mutex_);
  if (!held_) return;
  held_ = false;
  let_go_.notify_all();
}

void Claims::forget(CursorId cursor) {
  Lock lock(mutex_);
  claims_.erase(cursor);
}

}  // namespace signal_agent::spool
