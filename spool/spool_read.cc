#include <rocksdb/db.h>

#include <algorithm>

#include "spool/spool_impl.h"

namespace signal_agent::spool {

Result<ReadBatch> Spool::read(Seq from, ReadLimits limits) const {
  const std::shared_ptr<Store> opened = impl_->opened();
  if (opened == nullptr) return Error{Code::kShuttingDown, "the spool is closed"};
  Seq end;
  {
    Lock lock(impl_->mutex);
    end = impl_->ledger.state.last;
    from = std::max(from, impl_->ledger.state.floor.next());
  }
  ReadBatch read;
  read.next = from;
  if (from > end) return read;

  const DiskWatch::Call waiting(impl_->disk);
  const SeqKey bound = seq_key(end.value + 1);
  const rocksdb::Slice upper = slice(view(bound));
  rocksdb::ReadOptions read_options;
  read_options.fill_cache = false;
  read_options.iterate_upper_bound = &upper;
  const auto iterate = [&] {
    return std::unique_ptr<rocksdb::Iterator>(
        opened->db().NewIterator(read_options, opened->events()));
  };
  // A number that is no gap and was not freed should be there.
  const auto report = [&](SeqRange range, std::string what) {
    if (range.last < range.first) return;
    std::uint64_t count = 0;
    {
      Lock lock(impl_->mutex);
      const Ledger& ledger = impl_->ledger;
      range.first = std::max(range.first, ledger.state.floor.next());  // trimmed while we read
      for (const SeqRange& kept : ledger.freed.outside(range))
        count += kept.size() - ledger.gaps.count(kept);
    }
    if (count > 0) read.damaged.push_back({range, count, std::move(what)});
  };
  // An iterator may pass over a table that it cannot open, and end without an error (7.8.3): what
  // it left out is looked for from behind, by another one.
  const auto report_missing = [&](SeqRange range) -> rocksdb::Status {
    const std::size_t before = read.damaged.size();
    report(range, "missing on disk");
    if (read.damaged.size() == before) return rocksdb::Status::OK();
    const auto back = iterate();
    const SeqKey last = seq_key(range.last.value);
    back->SeekForPrev(slice(view(last)));
    rocksdb::Status status = back->status();
    if (status.ok() && back->Valid() && Seq{seq_of_key(text(back->key()))} >= range.first)
      status = rocksdb::Status::IOError("a table was passed over; it is there");
    if (is_damage(status)) return rocksdb::Status::OK();
    if (!status.ok()) read.damaged.pop_back();
    return status;
  };

  // Bytes first, views last: the arena moves while it grows.
  auto arena = std::make_shared<std::string>();
  struct Place {
    Seq seq;
    std::size_t offset;
    std::size_t size;
  };
  std::vector<Place> places;
  auto at = iterate();
  SeqKey key = seq_key(from.value);
  at->Seek(slice(view(key)));
  bool full = false;
  rocksdb::Status hindered;  // what was read so far is handed out first
  while (!full) {
    for (; at->Valid(); at->Next()) {
      const std::string_view value = text(at->value());
      if (!places.empty() &&
          (places.size() >= limits.max_events || arena->size() + value.size() > limits.max_bytes)) {
        full = true;
        break;
      }
      const Seq seq{seq_of_key(text(at->key()))};
      if (read.next < seq) hindered = report_missing({read.next, {seq.value - 1}});
      if (!hindered.ok()) break;
      places.push_back({seq, arena->size(), value.size()});
      arena->append(value);
      read.next = seq.next();
    }
    if (full || !hindered.ok()) break;
    if (at->status().ok()) {
      hindered = report_missing({read.next, end});
      if (hindered.ok()) read.next = end.next();
      break;
    }
    if (!is_damage(at->status())) {
      hindered = at->status();
      break;
    }
    // A block cannot be read: look for the next number that can be, first in doubling steps, then
    // by halving the last one.
    const std::string what = at->status().ToString();
    const Seq bad = read.next;
    const auto readable = [&](std::uint64_t number) {
      auto probe = iterate();
      const SeqKey probe_key = seq_key(number);
      probe->Seek(slice(view(probe_key)));
      if (!probe->status().ok() && !is_damage(probe->status())) hindered = probe->status();
      return probe->status().ok();
    };
    std::uint64_t unreadable = bad.value - 1;
    std::uint64_t good = bad.value;  // once more: it may have been for a moment only
    for (std::uint64_t step = 1; good <= end.value && !readable(good); step *= 2) {
      unreadable = good;
      good = std::min(end.value + 1, good + step);
    }
    while (good - unreadable > 1) {
      const std::uint64_t middle = unreadable + (good - unreadable) / 2;
      (readable(middle) ? good : unreadable) = middle;
    }
    if (!hindered.ok()) break;
    at = iterate();
    key = seq_key(good);
    at->Seek(slice(view(key)));
    report({bad, {good - 1}}, what);
    read.next = {good};
  }

  if (!hindered.ok() && read.next == from) return error_of(hindered, "reading events");
  read.events.reserve(places.size());
  for (const Place& place : places) {
    auto event = decode_event(std::string_view(*arena).substr(place.offset, place.size), place.seq);
    if (event)
      read.events.push_back(*event);
    else
      report({place.seq, place.seq}, event.error().message);
  }
  read.owner_ = std::move(arena);
  return read;
}

}  // namespace signal_agent::spool
