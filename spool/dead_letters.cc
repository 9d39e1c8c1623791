#include "spool/dead_letters.h"

#include <rocksdb/db.h>
#include <rocksdb/snapshot.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <memory>

namespace signal_agent::spool {
namespace {

DeadHeader header_from(std::string_view bytes) {
  auto decoded = decode_dead_header(bytes);
  if (decoded) return std::move(decoded).value();
  DeadHeader header;
  header.why.reason = "damaged";
  header.why.code = "DAMAGED";
  header.why.text = decoded.error().message;
  return header;
}

}  // namespace

bool matches(const DeadQuery& query, Seq seq, const DeadHeader& header) {
  if (!query.seqs.empty() &&
      std::find(query.seqs.begin(), query.seqs.end(), seq) == query.seqs.end())
    return false;
  if (query.reason && *query.reason != header.why.reason) return false;
  if (query.since_ms && header.why.last_failure_ms < *query.since_ms) return false;
  if (query.until_ms && header.why.last_failure_ms > *query.until_ms) return false;
  if (query.self_healing && *query.self_healing != header.why.self_healing) return false;
  if (query.replaying && *query.replaying != header.replaying) return false;
  return true;
}

Result<void> DeadLetters::scan(CursorId cursor, const DeadQuery& query, Seq after,
                               const std::function<bool(Seq, const DeadHeader&)>& visit) const {
  if (!query.seqs.empty()) {
    DeadQuery rest = query;
    rest.seqs.clear();
    std::vector<Seq> seqs = query.seqs;
    std::sort(seqs.begin(), seqs.end());
    seqs.erase(std::unique(seqs.begin(), seqs.end()), seqs.end());
    for (const Seq seq : seqs) {
      if (seq <= after) continue;
      auto found = header(cursor, seq);
      if (!found) return std::move(found).error();
      if (*found && matches(rest, seq, **found) && !visit(seq, **found)) break;
    }
    return {};
  }
  const DiskWatch::Call waiting(store_.disk());
  const std::string end_key = dead_key('h', cursor, {~0ULL});
  const rocksdb::Slice end(end_key);
  rocksdb::ManagedSnapshot snapshot(&store_.db());
  rocksdb::ReadOptions options;
  options.snapshot = snapshot.snapshot();
  options.fill_cache = false;
  options.iterate_upper_bound = &end;
  const auto iterate = [&] {
    return std::unique_ptr<rocksdb::Iterator>(
        store_.db().NewIterator(options, store_.dead_letters()));
  };
  Seq seen = after;
  const auto at = iterate();
  for (at->Seek(dead_key('h', cursor, after.next())); at->Valid(); at->Next()) {
    seen = seq_of_dead_key(text(at->key()));
    const DeadHeader found = header_from(text(at->value()));
    if (matches(query, seen, found) && !visit(seen, found)) return {};
  }
  rocksdb::Status status = at->status();
  if (status.ok()) {
    // It may have ended before a table that could not be opened, without an error (7.8.3).
    const auto back = iterate();
    back->SeekForPrev(end);
    status = back->status();
    if (status.ok() && back->Valid() && text(back->key()) > dead_key('h', cursor, seen))
      status = rocksdb::Status::IOError("a table was passed over; it is there");
  }
  if (!status.ok()) return error_of(status, "reading dead letters");
  return {};
}

Result<std::optional<DeadHeader>> DeadLetters::header(CursorId cursor, Seq seq) const {
  std::string bytes;
  const DiskWatch::Call waiting(store_.disk());
  const rocksdb::Status status =
      store_.db().Get({}, store_.dead_letters(), dead_key('h', cursor, seq), &bytes);
  if (status.IsNotFound()) return std::optional<DeadHeader>{};
  const std::string what = "reading dead letter " + std::to_string(seq.value);
  if (is_damage(status)) return Error{Code::kCorrupt, what + ": " + status.ToString()};
  if (!status.ok()) return error_of(status, what);
  return std::optional<DeadHeader>(header_from(bytes));
}

Result<DeadLetter> DeadLetters::load(CursorId cursor, Seq seq, const DeadHeader& header) const {
  DeadLetter letter;
  letter.cursor = cursor;
  letter.seq = seq;
  letter.why = header.why;
  letter.replaying = header.replaying;
  const DiskWatch::Call waiting(store_.disk());
  // Through the block cache: they are read one after the other, and a block holds dozens.
  const rocksdb::Status status =
      store_.db().Get({}, store_.dead_letters(), dead_key('e', cursor, seq), &letter.encoded);
  const std::string what = "reading dead letter " + std::to_string(seq.value);
  if (status.IsNotFound() || is_damage(status))
    return Error{Code::kCorrupt, what + ": " + status.ToString()};
  if (!status.ok()) return error_of(status, what);
  if (auto event = decode_event(letter.encoded, seq); !event)
    return std::move(event).error().with_context("dead letter " + std::to_string(seq.value));
  return letter;
}

void DeadLetters::put(rocksdb::WriteBatch& batch, CursorId cursor, Seq seq,
                      const DeadHeader& header, std::string_view encoded) const {
  put_header(batch, cursor, seq, header);
  batch.Put(store_.dead_letters(), dead_key('e', cursor, seq),
            rocksdb::Slice(encoded.data(), encoded.size()));
}

void DeadLetters::put_header(rocksdb::WriteBatch& batch, CursorId cursor, Seq seq,
                             const DeadHeader& header) const {
  batch.Put(store_.dead_letters(), dead_key('h', cursor, seq), encode_dead_header(header));
}

void DeadLetters::erase(rocksdb::WriteBatch& batch, CursorId cursor, Seq seq) const {
  batch.Delete(store_.dead_letters(), dead_key('h', cursor, seq));
  batch.Delete(store_.dead_letters(), dead_key('e', cursor, seq));
}

void DeadLetters::erase_all(rocksdb::WriteBatch& batch, CursorId cursor) const {
  for (const char kind : {'h', 'e'})
    batch.DeleteRange(store_.dead_letters(), dead_key(kind, cursor, {0}),
                      dead_key(kind, cursor + 1, {0}));
}

}  // namespace signal_agent::spool
