// BodyBudget: how much memory the bodies of requests may take together.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

namespace signal_agent::http {

/// All bodies in memory together, over every server that shares it. Thread-safe.
class BodyBudget {
 public:
  explicit BodyBudget(std::uint64_t max_bytes);

  /// Bytes taken; gives them back when destroyed, even after the budget itself is gone.
  class Share {
    struct Pool {
      std::uint64_t max_bytes = 0;
      std::atomic<std::uint64_t> used{0};
    };

   public:
    explicit Share(std::shared_ptr<Pool> pool) : pool_(std::move(pool)) {}  // see take()
    ~Share();
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;
    /// Takes more until it holds `total`; false when that does not fit, and nothing was taken.
    bool grow_to(std::uint64_t total);

   private:
    friend class BodyBudget;
    const std::shared_ptr<Pool> pool_;
    std::uint64_t held_ = 0;
  };

  /// Null when they do not fit (answer 503).
  std::shared_ptr<Share> take(std::uint64_t bytes);
  std::uint64_t used() const;

 private:
  std::shared_ptr<Share::Pool> pool_;
};

}  // namespace signal_agent::http
