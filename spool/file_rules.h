// The rules RocksDB's files follow in a spool, over whatever file system it is given:
//
// - At most one record of a MANIFEST (its list of files) is unsynced. RocksDB writes the several
//   records of one change and syncs behind the last; a power cut may then leave a hole with a whole
//   record behind it, which looks like rot where changes had taken effect. In order, a hole is the
//   tail (mend_manifest cuts it off) or it is rot. A change of five records, one per column family,
//   costs four syncs more; there is one such change per memtable written out.
// - A write-ahead log has its full length from its first record on, zeros ahead: a commit's
//   fdatasync has no new length to make durable. An opening gives the zeros back (mend_newest_wal).
#pragma once

#include <memory>

namespace rocksdb {
class FileSystem;
}

namespace signal_agent::spool {

/// Threads and errors as `base`.
std::shared_ptr<rocksdb::FileSystem> with_file_rules(std::shared_ptr<rocksdb::FileSystem> base);

}  // namespace signal_agent::spool
