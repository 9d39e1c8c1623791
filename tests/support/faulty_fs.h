// FaultyDisk: a disk that forgets what was not synced, fails when told to, and fills up. Hands
// RocksDB an Env whose files are real files; only their durability is pretended, so that thousands
// of power cuts take minutes.
//
//   FaultyDisk disk(dir, seed);
//   disk.cut_power_after(57);     // the 57th operation from now on is the last that happens
//   ... open a spool with disk.env(), work until everything fails ...
//   disk.crash();                 // the files are now what a power cut could have left
//
// One object per "boot": after crash() its Env stays dead, so a leaked database cannot touch the
// files any more; the next boot makes a new one over the same folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace rocksdb {
class Env;
}

namespace signal_agent {

class FaultyDisk {
 public:
  FaultyDisk(std::filesystem::path dir, std::uint64_t seed);
  /// The next process on the same machine after `killed.kill()`: what that one had not synced still
  /// is not, and goes with the next power cut.
  FaultyDisk(std::filesystem::path dir, std::uint64_t seed, const FaultyDisk& killed);
  ~FaultyDisk();

  rocksdb::Env* env();

  /// Operations that change something (append, sync, create, rename, delete, folder sync) are
  /// counted.
  std::uint64_t operations() const;
  void cut_power_after(std::uint64_t more_operations);
  bool powered() const;
  /// Ends this boot and leaves of the unsynced what chance keeps.
  void crash();
  /// Ends this process only: its files stay as they were written, synced or not.
  void kill();

  /// The n-th sync from now on (1 is the next) fails with an I/O error, and all later ones.
  void fail_sync_after(std::uint64_t more_syncs);
  /// From now on syncs do not come back until end_hang().
  void hang_syncs();
  /// Returns when one of them hangs.
  void await_hanging_sync();
  void end_hang();
  /// The n-th append fails with "no space", and all later ones until `set_full(false)`.
  void fill_up_after(std::uint64_t more_appends);
  void set_full(bool full);
  /// After `after` more reads of a table, openings included, `count` fail with these words. Not
  /// those of RocksDB's own threads: a compaction that fails ends the spool, which is another test.
  void fail_reads(std::uint64_t count, std::string words, std::uint64_t after = 0);
  /// How many of them are still to come.
  std::uint64_t reads_to_fail() const;
  /// What the file system reports as free; the default is plenty.
  void set_free_bytes(std::uint64_t bytes);
  void set_read_only(bool read_only);

 private:
  class FileSystem;
  std::shared_ptr<FileSystem> file_system_;
  std::unique_ptr<rocksdb::Env> env_;
};

}  // namespace signal_agent
