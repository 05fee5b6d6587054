#include "actors/cli/progress.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace troupe::cli {

namespace {

constexpr int width = 24;
constexpr std::chrono::milliseconds pause{50};

} // namespace

std::string bar(double share, std::string_view what) {
  const auto part = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0.0;
  const auto filled = static_cast<int>(part * width);
  return fmt::format("[{:#<{}}{:.<{}}] {:3.0f} %  {}", "", filled, "", width - filled, part * 100,
                     what);
}

std::string pace(std::size_t done, std::size_t all, std::chrono::duration<double> since) {
  if (done == 0 || since.count() <= 0)
    return fmt::format("{}/{}", done, all);
  const auto rate = static_cast<double>(done) / since.count();
  return fmt::format("{}/{}, {:.1f} requests/s, {:.0f} s left", done, all, rate,
                     static_cast<double>(all - done) / rate);
}

progress_line::progress_line() : terminal_{isatty(STDERR_FILENO) == 1} {}

progress_line::~progress_line() { clear(); }

void progress_line::show(double share, std::string_view what) {
  if (!terminal_)
    return;
  const std::lock_guard lock{mutex_};
  const auto now = std::chrono::steady_clock::now();
  if (share < 1 && now - last_ < pause)
    return;
  last_ = now;
  drawn_ = true;
  std::fprintf(stderr, "\r\033[K%s", bar(share, what).c_str());
  std::fflush(stderr);
}

void progress_line::clear() {
  const std::lock_guard lock{mutex_};
  if (drawn_)
    std::fputs("\r\033[K", stderr);
  drawn_ = false;
}

} // namespace troupe::cli
