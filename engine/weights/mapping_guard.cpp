#include "engine/weights/mapping_guard.hpp"

#include "troupe/base/check.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

namespace troupe::engine {

/// One entry of the list. Entries are used again and never freed, so that the handler may walk the
/// list at any time.
struct mapping_guard::watched {
  /// 0 while nobody uses the entry.
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  std::atomic<bool> torn{false};
  watched* next = nullptr;
};

static_assert(std::atomic<std::uintptr_t>::is_always_lock_free &&
              std::atomic<bool>::is_always_lock_free);

/// What the handler knows. All of it is constant-initialised: a fault may come at any time.
struct watch_list {
  using watched = mapping_guard::watched;

  static void install();
  [[nodiscard]] static watched* take(std::uintptr_t begin, std::uintptr_t end);
  [[nodiscard]] static bool mend(std::uintptr_t fault) noexcept;

  static std::mutex mutex;
  static std::atomic<watched*> first;
  /// The handler before this one; written before this one is installed.
  static struct sigaction before;
  static std::uintptr_t page_bytes;
};

std::mutex watch_list::mutex;
std::atomic<mapping_guard::watched*> watch_list::first{nullptr};
struct sigaction watch_list::before {};
std::uintptr_t watch_list::page_bytes = 4096;

namespace {

/// For a fault that is not ours: as if this handler were not there.
void hand_on(int signal, siginfo_t* info, void* context) {
  const auto& before = watch_list::before;
  if ((before.sa_flags & SA_SIGINFO) != 0)
    return before.sa_sigaction(signal, info, context);
  if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
    return before.sa_handler(signal);
  const bool sent = info->si_code <= 0;
  if (sent && before.sa_handler == SIG_IGN)
    return;
  // A fault happens again when this returns, and then ends the process with the right address in
  // its core; the system does not let anybody ignore it.
  std::signal(signal, SIG_DFL);
  if (sent)
    std::raise(signal);
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int kept = errno;
  if (info->si_code <= 0 || !watch_list::mend(reinterpret_cast<std::uintptr_t>(info->si_addr)))
    hand_on(signal, info, context);
  errno = kept;
}

} // namespace

/// @pre the mutex is held
void watch_list::install() {
  static bool installed = false;
  if (std::exchange(installed, true))
    return;
  page_bytes = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction ours {};
  ours.sa_sigaction = on_bus_error;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&ours.sa_mask);
  ::sigaction(SIGBUS, nullptr, &before);
  ::sigaction(SIGBUS, &ours, nullptr);
}

mapping_guard::watched* watch_list::take(std::uintptr_t begin, std::uintptr_t end) {
  const std::lock_guard lock{mutex};
  install();
  auto* one = first.load(std::memory_order_relaxed);
  while (one != nullptr && one->begin.load(std::memory_order_relaxed) != 0)
    one = one->next;
  const bool fresh = one == nullptr;
  if (fresh)
    one = new watched;
  one->torn.store(false, std::memory_order_relaxed);
  one->end.store(end, std::memory_order_relaxed);
  one->begin.store(begin, std::memory_order_release);
  if (fresh) {
    one->next = first.load(std::memory_order_relaxed);
    first.store(one, std::memory_order_release);
  }
  return one;
}

/// Puts zeros in the place of the page and all behind it: what is cut lacks its end, and a mapping
/// of many pieces would meet the system's limit on their number. In the handler.
/// @return false when nobody guards the address
bool watch_list::mend(std::uintptr_t fault) noexcept {
  for (auto* one = first.load(std::memory_order_acquire); one != nullptr; one = one->next) {
    const auto begin = one->begin.load(std::memory_order_acquire);
    const auto end = one->end.load(std::memory_order_relaxed);
    if (begin == 0 || fault < begin || fault >= end)
      continue;
    const auto page = fault / page_bytes * page_bytes;
    one->torn.store(true, std::memory_order_relaxed);
    return ::mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
  }
  return false;
}

mapping_guard::mapping_guard(const void* begin, std::size_t bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(begin);
  TROUPE_CHECK(begin != nullptr && bytes > 0, "a guard over nothing");
  watched_ = watch_list::take(at, at + bytes);
  TROUPE_CHECK(at % watch_list::page_bytes == 0, "a guard from {:#x}, inside a page", at);
}

mapping_guard::mapping_guard(mapping_guard&& other) noexcept
    : watched_{std::exchange(other.watched_, nullptr)} {}

mapping_guard& mapping_guard::operator=(mapping_guard&& other) noexcept {
  std::swap(watched_, other.watched_);
  return *this;
}

mapping_guard::~mapping_guard() {
  if (watched_ != nullptr)
    watched_->begin.store(0, std::memory_order_release);
}

bool mapping_guard::torn() const noexcept {
  return watched_ != nullptr && watched_->torn.load(std::memory_order_relaxed);
}

} // namespace troupe::engine
