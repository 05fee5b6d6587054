#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <type_traits>
#include <vector>

#include "kernels/cpu/isa.hpp"
#include "kernels/cpu/tensor.hpp"

namespace troupe::kernels::cpu {

class team;

/// A contiguous share of some items.
struct share {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// One thread's part in a team while it runs. Every collective operation takes one.
class member {
public:
  [[nodiscard]] unsigned rank() const noexcept { return rank_; }
  [[nodiscard]] unsigned size() const noexcept;

  /// Waits until every member has come here; writes before it are seen by all after it.
  /// @cost below a microsecond while all members have a core; else a futex sleep after the spin
  void sync() noexcept;

  /// This member's share of `items`, contiguous and even to one item.
  [[nodiscard]] share split(std::int64_t items) const noexcept;

  /// The inner kernels of the team's instruction-set path.
  [[nodiscard]] const kernel_table& kernels() const noexcept;

  /// Working memory of this member alone, 64-byte aligned, of `scratch_bytes`.
  [[nodiscard]] std::span<std::byte> scratch() noexcept;

  static constexpr std::size_t scratch_bytes = 256U << 10U;

private:
  friend class team;
  member(team& owner, unsigned rank) noexcept : team_{&owner}, rank_{rank} {}
  team* team_;
  unsigned rank_;
};

struct team_options {
  /// How many pauses a waiting member spins (about 10 ns to 40 ns each) before it sleeps. Zero
  /// sleeps at once; large values waste a shared core.
  std::uint32_t spin = 4000;
  /// The instruction-set path; must be supported.
  isa path = best_isa();
};

/// A fixed set of threads that run one function together (SPMD). The caller is member 0, so a
/// team of one starts no thread. A whole forward pass is one run(). Not thread-safe: one run() at
/// a time; a run() inside a run() is a programmer's error.
class team {
public:
  /// @pre threads >= 1 and supported(options.path)
  explicit team(unsigned threads, team_options options = {});
  team(const team&) = delete;
  team& operator=(const team&) = delete;
  ~team();

  /// Threads, the caller included.
  [[nodiscard]] unsigned size() const noexcept { return size_; }
  [[nodiscard]] isa path() const noexcept { return options_.path; }

  /// Calls f(member&) on every thread and returns when all have returned. `f` must not throw.
  template <class F>
  void run(F&& f) {
    using function = std::remove_reference_t<F>;
    run_erased([](void* context, member& m) { (*static_cast<function*>(context))(m); },
               const_cast<void*>(static_cast<const void*>(std::addressof(f))));
  }

private:
  friend class member;
  using entry = void (*)(void*, member&);

  void run_erased(entry function, void* context);
  void work(unsigned rank);
  void barrier() noexcept;
  void wait_while(const std::atomic<std::uint32_t>& word, std::uint32_t old) noexcept;

  // Each word that members poll has a cache line of its own.
  alignas(64) std::atomic<std::uint32_t> arrived_{0};
  alignas(64) std::atomic<std::uint32_t> phase_{0};
  alignas(64) std::atomic<std::uint32_t> job_{0};
  alignas(64) std::atomic<std::uint32_t> sleepers_{0};
  unsigned size_;
  team_options options_;
  const kernel_table* kernels_;
  entry function_ = nullptr;
  void* context_ = nullptr;
  bool stopping_ = false;
  bool running_ = false;
  std::unique_ptr<std::byte[]> scratch_;
  std::byte* scratch_begin_ = nullptr;
  std::vector<std::thread> threads_;
};

} // namespace troupe::kernels::cpu
