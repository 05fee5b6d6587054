#include "kernels/cpu/team.hpp"

#include "troupe/base/check.hpp"

#include <algorithm>

namespace troupe::kernels::cpu {

namespace {

void pause_once() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

} // namespace

unsigned member::size() const noexcept { return team_->size_; }

void member::sync() noexcept { team_->barrier(); }

share member::split(std::int64_t items) const noexcept {
  const std::int64_t threads = team_->size_;
  return {items * rank_ / threads, items * (rank_ + 1) / threads};
}

const kernel_table& member::kernels() const noexcept { return *team_->kernels_; }

std::span<std::byte> member::scratch() noexcept {
  return {team_->scratch_begin_ + rank_ * scratch_bytes, scratch_bytes};
}

team::team(unsigned threads, team_options options)
    : size_{threads}, options_{options}, kernels_{&select(options.path)} {
  TROUPE_CHECK(threads >= 1, "a team has at least its caller");
  // Not initialised: pages that no operation touches stay out of resident memory.
  scratch_.reset(new std::byte[threads * member::scratch_bytes + 64]);
  const auto address = reinterpret_cast<std::uintptr_t>(scratch_.get());
  scratch_begin_ = scratch_.get() + (64 - address % 64) % 64;
  threads_.reserve(threads - 1);
  for (unsigned rank = 1; rank < threads; ++rank)
    threads_.emplace_back([this, rank] { work(rank); });
}

team::~team() {
  stopping_ = true;
  job_.fetch_add(1);
  job_.notify_all();
  for (std::thread& thread : threads_)
    thread.join();
}

void team::run_erased(entry function, void* context) {
  TROUPE_CHECK(!running_, "a team runs one function at a time");
  running_ = true;
  function_ = function;
  context_ = context;
  if (size_ > 1) {
    job_.fetch_add(1);
    if (sleepers_.load() != 0)
      job_.notify_all();
  }
  member self{*this, 0};
  function(context, self);
  barrier();
  running_ = false;
}

void team::work(unsigned rank) {
  std::uint32_t seen = 0;
  member self{*this, rank};
  while (true) {
    wait_while(job_, seen);
    ++seen;
    if (stopping_)
      return;
    function_(context_, self);
    barrier();
  }
}

void team::barrier() noexcept {
  if (size_ == 1)
    return;
  const std::uint32_t phase = phase_.load();
  if (arrived_.fetch_add(1) + 1 == size_) {
    arrived_.store(0);
    phase_.store(phase + 1);
    if (sleepers_.load() != 0)
      phase_.notify_all();
    return;
  }
  wait_while(phase_, phase);
}

void team::wait_while(const std::atomic<std::uint32_t>& word, std::uint32_t old) noexcept {
  for (std::uint32_t i = 0; i < options_.spin; ++i) {
    if (word.load(std::memory_order_acquire) != old)
      return;
    pause_once();
  }
  // A waker looks at sleepers_ after it has changed the word, a sleeper at the word after it has
  // counted itself (both sequentially consistent), so one of them sees the other.
  sleepers_.fetch_add(1);
  while (word.load() == old)
    word.wait(old);
  sleepers_.fetch_sub(1);
}

} // namespace troupe::kernels::cpu
