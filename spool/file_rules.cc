#include "spool/file_rules.h"

#include <rocksdb/file_system.h>

#include <filesystem>
#include <string>
#include <utility>

namespace signal_agent::spool {
namespace {

using rocksdb::FileOptions;
using rocksdb::FSWritableFile;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

/// RocksDB hands a record over in one append, or in a few: more syncs then, never fewer.
class OrderedManifest final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  using FSWritableFileOwnerWrapper::FSWritableFileOwnerWrapper;

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    if (IOStatus status = sync_before_next(options, debug); !status.ok()) return status;
    return FSWritableFileOwnerWrapper::Append(data, options, debug);
  }
  IOStatus Append(const Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& sums, IODebugContext* debug) override {
    if (IOStatus status = sync_before_next(options, debug); !status.ok()) return status;
    return FSWritableFileOwnerWrapper::Append(data, options, sums, debug);
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    return synced(FSWritableFileOwnerWrapper::Sync(options, debug));
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return synced(FSWritableFileOwnerWrapper::Fsync(options, debug));
  }

 private:
  IOStatus sync_before_next(const IOOptions& options, IODebugContext* debug) {
    if (std::exchange(unsynced_, true)) return FSWritableFileOwnerWrapper::Sync(options, debug);
    return IOStatus::OK();
  }

  IOStatus synced(IOStatus status) {
    if (status.ok()) unsynced_ = false;
    return status;
  }

  bool unsynced_ = false;
};

class FileRules final : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;
  const char* Name() const override { return "signal_agent.file_rules"; }

  FileOptions OptimizeForLogWrite(const FileOptions& options,
                                  const rocksdb::DBOptions& db) const override {
    FileOptions log = FileSystemWrapper::OptimizeForLogWrite(options, db);
    log.fallocate_with_keep_size = false;
    return log;
  }

  IOStatus NewWritableFile(const std::string& name, const FileOptions& options,
                           std::unique_ptr<FSWritableFile>* result,
                           IODebugContext* debug) override {
    IOStatus status = FileSystemWrapper::NewWritableFile(name, options, result, debug);
    // RocksDB never opens one again: each opening of the database begins a new MANIFEST.
    if (status.ok() && std::filesystem::path(name).filename().string().starts_with("MANIFEST-"))
      *result = std::make_unique<OrderedManifest>(std::move(*result));
    return status;
  }
};

}  // namespace

std::shared_ptr<rocksdb::FileSystem> with_file_rules(std::shared_ptr<rocksdb::FileSystem> base) {
  return std::make_shared<FileRules>(std::move(base));
}

}  // namespace signal_agent::spool
