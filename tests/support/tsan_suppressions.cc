// For the thread sanitizer only: what it cannot see inside Debian's libraries.
//
// They count references with atomics that were built without the sanitizer, so what the last
// reference destroys looks unordered to everything that was done with the others. What our own
// threads do among themselves is seen.

extern "C" const char* __tsan_default_suppressions() {
  return
      // librdkafka takes a read lock of its handle's for the last time, and another of its threads
      // destroys the lock and frees the handle. By the function and not by the library, so that a
      // race of ours in what it calls back is seen; nothing of ours has such a lock.
      "race:pthread_rwlock_rdlock\n"
      // Memory that a read of ours pinned, given back by a flush or compaction after the read has
      // ended. Our compaction filters do not run below these; a use after the read's end would be a
      // use after free, which the address sanitizer reports.
      "race:rocksdb::Version::Unref\n"
      "race:rocksdb::SuperVersion::~SuperVersion\n"
      "race:rocksdb::Arena::~Arena\n"
      "race:rocksdb::BinarySearchIndexReader::~BinarySearchIndexReader\n"
      "race:rocksdb::DBImpl::PurgeObsoleteFiles\n";
}
