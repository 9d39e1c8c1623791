#include "agent/http/body_budget.h"

namespace signal_agent::http {

BodyBudget::BodyBudget(std::uint64_t max_bytes) : pool_(std::make_shared<Share::Pool>()) {
  pool_->max_bytes = max_bytes;
}

std::shared_ptr<BodyBudget::Share> BodyBudget::take(std::uint64_t bytes) {
  auto share = std::make_shared<Share>(pool_);
  if (!share->grow_to(bytes)) return nullptr;
  return share;
}

std::uint64_t BodyBudget::used() const {
  return pool_->used.load(std::memory_order_relaxed);
}

bool BodyBudget::Share::grow_to(std::uint64_t total) {
  if (total <= held_) return true;
  const std::uint64_t more = total - held_;
  const std::uint64_t before = pool_->used.fetch_add(more, std::memory_order_relaxed);
  if (before + more > pool_->max_bytes) {
    pool_->used.fetch_sub(more, std::memory_order_relaxed);
    return false;
  }
  held_ = total;
  return true;
}

BodyBudget::Share::~Share() {
  pool_->used.fetch_sub(held_, std::memory_order_relaxed);
}

}  // namespace signal_agent::http
