#include "spool/spool_impl.h"

namespace signal_agent::spool {

void Spool::Impl::write_high_water_now() {
  HighWater high_water;
  {
    Lock lock(mutex);
    high_water = {ledger.spool_id, ledger.state.last, {}, false};
  }
  if (failed || high_water.acknowledged == high_water_written) return;
  if (write_high_water(dir, high_water)) high_water_written = high_water.acknowledged;
}

/// Once a second: give back what is settled, look at the disk, note the high-water mark.
void Spool::Impl::housekeeping() {
  check_disk();
  write_high_water_now();
  const std::shared_ptr<Store> opened = this->opened();
  if (opened != nullptr && !failed) {
    std::vector<SeqRange> freed;
    {
      Lock lock(mutex);
      freed = ledger.freed.ranges();
    }
    opened->trim();
    for (const SeqRange& range : freed)
      if (range.size() >= 1000) opened->trim_events(range.first.value, range.last.value);
  }
  disk_used = folder_bytes(dir);
  if (++house_turns == 3 && fs_bytes >= kGiB && !has_ballast(dir) &&
      disk_free > min_free + 2 * kBallastBytes)
    make_ballast(dir, kBallastBytes);
  if (house_turns >= 60) house_turns = 0;
}

void Spool::Impl::house_loop() {
  for (;;) {
    {
      Lock lock(house_mutex);
      const auto until = std::chrono::steady_clock::now() + kHousekeeping;
      while (!house_stop && house_changed.wait_until(house_mutex, until)) {
      }
      if (house_stop) return;
    }
    housekeeping();
  }
}

}  // namespace signal_agent::spool
