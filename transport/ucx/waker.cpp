#include "transport/ucx/waker.hpp"

#include "troupe/base/check.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

namespace troupe::net::ucx {

waker::waker() : event_{eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)} {
  TROUPE_CHECK(event_ >= 0, "the system gives no event descriptor");
}

waker::~waker() { ::close(event_); }

void waker::wake() noexcept {
  if (!sleeps_.load(std::memory_order_seq_cst) || !sleeps_.exchange(false))
    return;
  const std::uint64_t one = 1;
  // A counter that is full wakes as well.
  [[maybe_unused]] const auto written = ::write(event_, &one, sizeof one);
}

void waker::room() noexcept {
  room_.store(true, std::memory_order_seq_cst);
  wake();
}

void waker::sleep(int descriptor, int milliseconds) noexcept {
  pollfd watched[] = {{descriptor, POLLIN, 0}, {event_, POLLIN, 0}};
  ::poll(watched, 2, milliseconds);
  is_awake();
  if (watched[1].revents != 0) {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(event_, &count, sizeof count);
  }
}

} // namespace troupe::net::ucx
