// Dead letters on disk: reading and the bytes to write. One header and one event per entry, under
// two keys, so that lists, counts and searches read headers only. Internal to spool/; what a change
// does to the books is the transaction's business.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "config/base/result.h"
#include "spool/codec.h"
#include "spool/spool.h"
#include "spool/store.h"

namespace rocksdb {
class WriteBatch;
}

namespace signal_agent::spool {

/// All but the paging members. Pure.
bool matches(const DeadQuery& query, Seq seq, const DeadHeader& header);

class DeadLetters {
 public:
  explicit DeadLetters(const Store& store) : store_(store) {}

  /// Headers that match, by sequence, from behind `after`; `visit` returns false to stop. A header
  /// that is damaged is shown under the reason "damaged", so that it can be seen and discarded.
  Result<void> scan(CursorId cursor, const DeadQuery& query, Seq after,
                    const std::function<bool(Seq, const DeadHeader&)>& visit) const;
  Result<std::optional<DeadHeader>> header(CursorId cursor, Seq seq) const;
  /// With the event's bytes, checked.
  Result<DeadLetter> load(CursorId cursor, Seq seq, const DeadHeader& header) const;

  void put(rocksdb::WriteBatch& batch, CursorId cursor, Seq seq, const DeadHeader& header,
           std::string_view encoded) const;
  void put_header(rocksdb::WriteBatch& batch, CursorId cursor, Seq seq,
                  const DeadHeader& header) const;
  void erase(rocksdb::WriteBatch& batch, CursorId cursor, Seq seq) const;
  void erase_all(rocksdb::WriteBatch& batch, CursorId cursor) const;

 private:
  const Store& store_;
};

}  // namespace signal_agent::spool
