// Mutex, Lock, CondVar with clang's thread-safety annotations (they vanish under g++): every
// guarded member says GUARDED_BY(mutex_), every function that needs the lock says REQUIRES(mutex_).
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define SIGNAL_AGENT_TSA(x) __attribute__((x))
#else
#define SIGNAL_AGENT_TSA(x)
#endif

#define CAPABILITY(x) SIGNAL_AGENT_TSA(capability(x))
#define SCOPED_CAPABILITY SIGNAL_AGENT_TSA(scoped_lockable)
#define GUARDED_BY(x) SIGNAL_AGENT_TSA(guarded_by(x))
#define REQUIRES(...) SIGNAL_AGENT_TSA(requires_capability(__VA_ARGS__))
#define ACQUIRE(...) SIGNAL_AGENT_TSA(acquire_capability(__VA_ARGS__))
#define RELEASE(...) SIGNAL_AGENT_TSA(release_capability(__VA_ARGS__))
#define EXCLUDES(...) SIGNAL_AGENT_TSA(locks_excluded(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS SIGNAL_AGENT_TSA(no_thread_safety_analysis)

namespace signal_agent {

class CAPABILITY("mutex") Mutex {
 public:
  void lock() ACQUIRE() { mutex_.lock(); }
  void unlock() RELEASE() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class SCOPED_CAPABILITY Lock {
 public:
  explicit Lock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~Lock() RELEASE() { mutex_.unlock(); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  Mutex& mutex_;
};

/// Waits give the mutex back while waiting; callers re-test their condition in a loop.
class CondVar {
 public:
  void wait(Mutex& mutex) REQUIRES(mutex) NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  /// True when notified (or spuriously), false when the time is up.
  bool wait_until(Mutex& mutex, std::chrono::steady_clock::time_point deadline)
      REQUIRES(mutex) NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const auto status = condition_.wait_until(lock, deadline);
    lock.release();
    return status == std::cv_status::no_timeout;
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace signal_agent
