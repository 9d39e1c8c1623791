#include "tests/support/faulty_fs.h"

#include <fcntl.h>
#include <pthread.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <limits>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace signal_agent {

using rocksdb::FileOptions;
using rocksdb::FSDirectory;
using rocksdb::FSRandomAccessFile;
using rocksdb::FSWritableFile;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

namespace {
constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

/// Flushing or compacting, not reading for us.
bool on_a_thread_of_rocksdb() {
  char name[16] = {};
  pthread_getname_np(pthread_self(), name, sizeof name);
  return std::string_view(name).starts_with("rocksdb:");
}
}  // namespace

class FaultyDisk::FileSystem final : public rocksdb::FileSystemWrapper {
 public:
  FileSystem(std::filesystem::path trash, std::uint64_t seed)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), trash_(std::move(trash)), random_(seed) {
    std::filesystem::create_directories(trash_);
  }
  const char* Name() const override { return "FaultyDisk"; }

  struct Content {
    std::uint64_t written = 0;
    std::uint64_t synced = 0;
    std::uint64_t length_synced = 0;  // more than was written when space was laid out ahead
  };

  // --- what fails -------------------------------------------------------------------------------

  /// Before every change, with the lock held until it is made: no thread of a dead boot is caught
  /// between the two and changes what the next one finds.
  enum class Act { kAppend, kSync, kOther };
  IOStatus act(Act what) {
    if (operations_ >= cut_at_) powered_ = false;
    if (!powered_) return IOStatus::IOError("power is off");
    ++operations_;
    if (read_only_) return IOStatus::IOError("Read-only file system");
    if (what == Act::kSync && ++syncs_ >= fail_sync_at_) return IOStatus::IOError("sync failed");
    if (what == Act::kAppend && ++appends_ >= full_at_) full_ = true;
    if (what == Act::kAppend && full_) return IOStatus::NoSpace("No space left on device");
    return IOStatus::OK();
  }

  void hang(std::unique_lock<std::mutex>& lock) {
    ++hanging_syncs_;
    changed_.notify_all();
    while (syncs_hang_) changed_.wait(lock);
    --hanging_syncs_;
  }

  // --- files
  // --------------------------------------------------------------------------------------

  class Table final : public rocksdb::FSRandomAccessFileOwnerWrapper {
   public:
    Table(FileSystem& disk, std::string name, std::unique_ptr<FSRandomAccessFile>&& file)
        : FSRandomAccessFileOwnerWrapper(std::move(file)), disk_(disk), name_(std::move(name)) {}

    IOStatus Read(std::uint64_t offset, std::size_t size, const IOOptions& options, Slice* result,
                  char* scratch, IODebugContext* debug) const override {
      if (IOStatus status = disk_.may_read(name_); !status.ok()) return status;
      return FSRandomAccessFileOwnerWrapper::Read(offset, size, options, result, scratch, debug);
    }
    IOStatus MultiRead(rocksdb::FSReadRequest* requests, std::size_t count,
                       const IOOptions& options, IODebugContext* debug) override {
      if (IOStatus status = disk_.may_read(name_); !status.ok()) return status;
      return FSRandomAccessFileOwnerWrapper::MultiRead(requests, count, options, debug);
    }

   private:
    FileSystem& disk_;
    const std::string name_;
  };

  class File final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    File(FileSystem& disk, std::string name, std::shared_ptr<Content> content,
         std::unique_ptr<FSWritableFile>&& file)
        : FSWritableFileOwnerWrapper(std::move(file)),
          disk_(disk),
          name_(std::move(name)),
          content_(std::move(content)) {}

    using FSWritableFileWrapper::Append;
    IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
      std::lock_guard<std::mutex> lock(disk_.mutex_);
      if (IOStatus status = disk_.act(Act::kAppend); !status.ok()) return status;
      content_->written += data.size();
      return FSWritableFileWrapper::Append(data, options, debug);
    }
    IOStatus Append(const Slice& data, const IOOptions& options,
                    const rocksdb::DataVerificationInfo&, IODebugContext* debug) override {
      return Append(data, options, debug);
    }
    IOStatus Sync(const IOOptions&, IODebugContext*) override { return sync(); }
    IOStatus Fsync(const IOOptions&, IODebugContext*) override { return sync(); }
    IOStatus RangeSync(std::uint64_t, std::uint64_t, const IOOptions&, IODebugContext*) override {
      return IOStatus::OK();  // a hint; promises nothing
    }
    IOStatus Allocate(std::uint64_t, std::uint64_t, const IOOptions&, IODebugContext*) override {
      return IOStatus::OK();
    }
    /// Lays out space ahead as the file's options say; not told apart from the append behind it.
    void PrepareWrite(std::size_t offset, std::size_t size, const IOOptions& options,
                      IODebugContext* debug) override {
      std::lock_guard<std::mutex> lock(disk_.mutex_);
      if (disk_.powered_) FSWritableFileOwnerWrapper::PrepareWrite(offset, size, options, debug);
    }
    IOStatus Close(const IOOptions& options, IODebugContext* debug) override {
      std::lock_guard<std::mutex> lock(disk_.mutex_);
      if (!disk_.powered_) return IOStatus::IOError("power is off");
      return FSWritableFileOwnerWrapper::Close(options, debug);  // gives that space back
    }

   private:
    IOStatus sync() {
      std::unique_lock<std::mutex> lock(disk_.mutex_);
      disk_.hang(lock);
      if (IOStatus status = disk_.act(Act::kSync); !status.ok()) return status;
      content_->synced = content_->written;
      std::error_code gone;  // a file without a name any more has no length to keep
      const std::uint64_t length = std::filesystem::file_size(name_, gone);
      content_->length_synced = gone ? 0 : length;
      return IOStatus::OK();
    }
    FileSystem& disk_;
    const std::string name_;
    const std::shared_ptr<Content> content_;
  };

  IOStatus NewWritableFile(const std::string& name, const FileOptions& options,
                           std::unique_ptr<FSWritableFile>* result,
                           IODebugContext* debug) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (IOStatus status = act(Act::kOther); !status.ok()) return status;
    std::unique_ptr<FSWritableFile> file;
    std::string old;
    if (std::filesystem::exists(name)) old = to_trash(name);
    if (IOStatus status = FileSystemWrapper::NewWritableFile(name, options, &file, debug);
        !status.ok())
      return status;
    auto content = std::make_shared<Content>();
    undo_.push_back({Undo::kCreate, name, "", old, contents_[name]});
    contents_[name] = content;
    *result = std::make_unique<File>(*this, name, content, std::move(file));
    return IOStatus::OK();
  }
  IOStatus NewRandomAccessFile(const std::string& name, const FileOptions& options,
                               std::unique_ptr<FSRandomAccessFile>* result,
                               IODebugContext* debug) override {
    if (IOStatus status = may_read(name); !status.ok()) return status;
    std::unique_ptr<FSRandomAccessFile> file;
    if (IOStatus status = FileSystemWrapper::NewRandomAccessFile(name, options, &file, debug);
        !status.ok())
      return status;
    *result = std::make_unique<Table>(*this, name, std::move(file));
    return IOStatus::OK();
  }
  IOStatus may_read(const std::string& name) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (reads_to_fail_ == 0 || on_a_thread_of_rocksdb()) return IOStatus::OK();
    if (reads_to_spare_ > 0) {
      --reads_to_spare_;
      return IOStatus::OK();
    }
    --reads_to_fail_;
    return IOStatus::IOError(name, read_error_);
  }
  IOStatus ReopenWritableFile(const std::string& name, const FileOptions& options,
                              std::unique_ptr<FSWritableFile>* result,
                              IODebugContext* debug) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (IOStatus status = act(Act::kOther); !status.ok()) return status;
    std::unique_ptr<FSWritableFile> file;
    if (IOStatus status = FileSystemWrapper::ReopenWritableFile(name, options, &file, debug);
        !status.ok())
      return status;
    auto& content = contents_[name];
    const std::uint64_t size = std::filesystem::file_size(name);
    if (!content) content = std::make_shared<Content>(Content{size, size, size});
    // Cut meanwhile, durably: at an opening, without this file system.
    if (size < content->written) *content = Content{size, size, size};
    *result = std::make_unique<File>(*this, name, content, std::move(file));
    return IOStatus::OK();
  }
  IOStatus ReuseWritableFile(const std::string&, const std::string&, const FileOptions&,
                             std::unique_ptr<FSWritableFile>*, IODebugContext*) override {
    return IOStatus::NotSupported("reuse");
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                      IODebugContext* debug) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (IOStatus status = act(Act::kOther); !status.ok()) return status;
    std::string old;
    if (std::filesystem::exists(to)) old = to_trash(to);
    if (IOStatus status = FileSystemWrapper::RenameFile(from, to, options, debug); !status.ok())
      return status;
    undo_.push_back({Undo::kRename, from, to, old, contents_[to]});
    contents_[to] = contents_[from];
    contents_.erase(from);
    return IOStatus::OK();
  }
  IOStatus DeleteFile(const std::string& name, const IOOptions&, IODebugContext*) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (IOStatus status = act(Act::kOther); !status.ok()) return status;
    if (!std::filesystem::exists(name)) return IOStatus::PathNotFound(name);
    undo_.push_back({Undo::kDelete, name, "", to_trash(name), contents_[name]});
    contents_.erase(name);
    return IOStatus::OK();
  }
  IOStatus Truncate(const std::string&, std::size_t, const IOOptions&, IODebugContext*) override {
    return IOStatus::NotSupported("truncate");
  }
  IOStatus LinkFile(const std::string&, const std::string&, const IOOptions&,
                    IODebugContext*) override {
    return IOStatus::NotSupported("link");
  }

  class Directory final : public FSDirectory {
   public:
    explicit Directory(FileSystem& disk) : disk_(disk) {}
    IOStatus Fsync(const IOOptions&, IODebugContext*) override {
      std::lock_guard<std::mutex> lock(disk_.mutex_);
      if (IOStatus status = disk_.act(Act::kSync); !status.ok()) return status;
      disk_.undo_.clear();
      return IOStatus::OK();
    }
    IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }

   private:
    FileSystem& disk_;
  };
  IOStatus NewDirectory(const std::string&, const IOOptions&, std::unique_ptr<FSDirectory>* result,
                        IODebugContext*) override {
    *result = std::make_unique<Directory>(*this);
    return IOStatus::OK();
  }

  // The spool's own lock file guards the folder; a dead boot must not hold RocksDB's.
  IOStatus LockFile(const std::string&, const IOOptions&, rocksdb::FileLock** lock,
                    IODebugContext*) override {
    *lock = new rocksdb::FileLock;
    return IOStatus::OK();
  }
  IOStatus UnlockFile(rocksdb::FileLock* lock, const IOOptions&, IODebugContext*) override {
    delete lock;
    return IOStatus::OK();
  }
  IOStatus GetFreeSpace(const std::string&, const IOOptions&, std::uint64_t* free,
                        IODebugContext*) override {
    std::lock_guard<std::mutex> lock(mutex_);
    *free = free_bytes_;
    return IOStatus::OK();
  }

  // --- the power cut
  // ----------------------------------------------------------------------------------

  void kill() {
    std::lock_guard<std::mutex> lock(mutex_);
    powered_ = false;
  }

  /// Only of one that was killed: nothing changes there any more.
  void take_over(const FileSystem& killed) {
    trash_ = killed.trash_;
    trashed_ = killed.trashed_;
    contents_ = killed.contents_;
    undo_ = killed.undo_;
  }

  void crash() {
    std::lock_guard<std::mutex> lock(mutex_);
    powered_ = false;
    const std::size_t kept = chance(undo_.size() + 1);
    while (undo_.size() > kept) {
      revert(undo_.back());
      undo_.pop_back();
    }
    for (auto& [name, content] : contents_)
      if (content && content->written > content->synced && std::filesystem::exists(name))
        forget_tail(name, *content);
    std::filesystem::remove_all(trash_);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool syncs_hang_ = false;
  int hanging_syncs_ = 0;
  std::uint64_t operations_ = 0;
  std::uint64_t cut_at_ = kNever;
  bool powered_ = true;
  std::uint64_t syncs_ = 0;
  std::uint64_t fail_sync_at_ = kNever;
  std::uint64_t appends_ = 0;
  std::uint64_t full_at_ = kNever;
  bool full_ = false;
  bool read_only_ = false;
  std::uint64_t reads_to_spare_ = 0;
  std::uint64_t reads_to_fail_ = 0;
  std::string read_error_;
  std::uint64_t free_bytes_ = 1ULL << 40;

 private:
  struct Undo {
    enum What { kCreate, kRename, kDelete } what;
    std::string name;
    std::string to;
    std::string old;  // what it replaced or removed, in the trash; empty when nothing
    std::shared_ptr<Content> old_content;
  };

  std::uint64_t chance(std::uint64_t below) { return random_() % below; }

  std::string to_trash(const std::string& name) {
    const std::string place = (trash_ / std::to_string(++trashed_)).string();
    std::filesystem::rename(name, place);
    return place;
  }

  void revert(const Undo& undo) {
    switch (undo.what) {
      case Undo::kCreate:
        std::filesystem::remove(undo.name);
        contents_.erase(undo.name);
        break;
      case Undo::kRename:
        std::filesystem::rename(undo.to, undo.name);
        contents_[undo.name] = contents_[undo.to];
        contents_.erase(undo.to);
        break;
      case Undo::kDelete:
        break;
    }
    if (undo.old.empty()) return;
    const std::string& place = undo.what == Undo::kRename ? undo.to : undo.name;
    std::filesystem::rename(undo.old, place);
    contents_[place] = undo.old_content;
  }

  static void keep_bytes(const std::string& name, const Content& content, std::uint64_t size) {
    std::filesystem::resize_file(name, size);
    if (content.length_synced > size) std::filesystem::resize_file(name, content.length_synced);
  }

  /// Of the bytes behind the last sync: none, some, all, or any pages or sectors of them.
  void forget_tail(const std::string& name, const Content& content) {
    const std::uint64_t tail = content.written - content.synced;
    switch (chance(4)) {
      case 0:
        keep_bytes(name, content, content.synced);
        break;
      case 1:
        keep_bytes(name, content, content.synced + chance(tail + 1));
        break;
      case 2:
        break;
      default: {
        const int file = ::open(name.c_str(), O_WRONLY);
        const std::uint64_t unit = chance(2) == 0 ? 512 : 4096;
        const std::string zeros(unit, '\0');
        for (std::uint64_t at = content.synced; at < content.written;) {
          const std::uint64_t unit_end = std::min(content.written, at - at % unit + unit);
          if (chance(2) == 0)
            (void)!::pwrite(file, zeros.data(), unit_end - at, static_cast<off_t>(at));
          at = unit_end;
        }
        ::close(file);
      }
    }
  }

  std::filesystem::path trash_;
  std::mt19937_64 random_;
  std::uint64_t trashed_ = 0;
  std::map<std::string, std::shared_ptr<Content>> contents_;
  std::vector<Undo> undo_;
};

FaultyDisk::FaultyDisk(std::filesystem::path dir, std::uint64_t seed)
    : file_system_(std::make_shared<FileSystem>(dir / ("trash-" + std::to_string(seed)), seed)),
      env_(rocksdb::NewCompositeEnv(file_system_)) {}

FaultyDisk::FaultyDisk(std::filesystem::path dir, std::uint64_t seed, const FaultyDisk& killed)
    : FaultyDisk(std::move(dir), seed) {
  file_system_->take_over(*killed.file_system_);
}

// Kept for whatever database still refers to them, and reachable: no leak to a leak checker.
FaultyDisk::~FaultyDisk() {
  if (operations() == 0) return;
  static std::mutex mutex;
  static auto* const kept =
      new std::vector<std::pair<std::shared_ptr<FileSystem>, std::unique_ptr<rocksdb::Env>>>;
  std::lock_guard<std::mutex> lock(mutex);
  kept->emplace_back(std::move(file_system_), std::move(env_));
}

rocksdb::Env* FaultyDisk::env() {
  return env_.get();
}

std::uint64_t FaultyDisk::operations() const {
  std::lock_guard<std::mutex> lock(file_system_->mutex_);
  return file_system_->operations_;
}
void FaultyDisk::cut_power_after(std::uint64_t more_operations) {
  std::lock_guard<std::mutex> lock(file_system_->mutex_);
  file_system_->cut_at_ = file_system_->operations_ + more_operations;
}
bool FaultyDisk::powered() const {
  std::lock_guard<std::mutex> lock(file_system_->mutex_);
  return file_system_->powered_;
}
void FaultyDisk::crash() {
  file_system_->crash();
}
void FaultyDisk::kill() {
  file_system_->kill();
}
void FaultyDisk::fail_sync_after(std::uint64_t more_syncs) {
  std::lock_guard<std::mutex> lock(file_system_->mutex_);
  file_system_->fail_sync_at_ = file_system_->syncs_ + more_syncs;
}
void FaultyDisk::hang_syncs() {
  std::lock_guard<std::mutex> lock(file_system_->mutex_);
  file_system_->syncs_hang_ = true;
}
void FaultyDisk::await_hanging_sync() {
  std::unique_lock<std::mutex> lock(file_system_->mutex_);
  while (file_system_->hanging_syncs_ == 0) file_system_->changed_.wait(lock);
}
void FaultyDisk::end_hang() {
  std::lock_guard<std::mutex> lock(file_system_->mutex_);
  file_system_->syncs_hang_ = false;
  file_system_->changed_.notify_all();
}
void FaultyDisk::fill_up_after(std::uint64_t more_appends) {
  std::lock_guard<std::mutex> lock(file_system_->mutex_);
  file_system_->full_at_ = file_system_->appends_ + more_appends;
}
void FaultyDisk::set_full(bool full) {
  std::lock_guard<std::mutex> lock(file_system_->mutex_);
  file_system_->full_ = full;
  file_system_->full_at_ = kNever;
}
void FaultyDisk::fail_reads(std::uint64_t count, std::string words, std::uint64_t after) {
  std::lock_guard<std::mutex> lock(file_system_->mutex_);
  file_system_->reads_to_spare_ = after;
  file_system_->reads_to_fail_ = count;
  file_system_->read_error_ = std::move(words);
}
std::uint64_t FaultyDisk::reads_to_fail() const {
  std::lock_guard<std::mutex> lock(file_system_->mutex_);
  return file_system_->reads_to_fail_;
}
void FaultyDisk::set_free_bytes(std::uint64_t bytes) {
  std::lock_guard<std::mutex> lock(file_system_->mutex_);
  file_system_->free_bytes_ = bytes;
}
void FaultyDisk::set_read_only(bool read_only) {
  std::lock_guard<std::mutex> lock(file_system_->mutex_);
  file_system_->read_only_ = read_only;
}

}  // namespace signal_agent
