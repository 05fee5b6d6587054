#pragma once

#include <chrono>
#include <cstddef>
#include <mutex>
#include <string>
#include <string_view>

namespace troupe::cli {

/// One line on standard error that is drawn over; silent where standard error is no terminal.
/// Thread-safe.
class progress_line {
public:
  progress_line();
  /// Clears the line.
  ~progress_line();
  progress_line(const progress_line&) = delete;
  progress_line& operator=(const progress_line&) = delete;

  /// `share` from 0 to 1; drawn at most every 50 ms, but always at 1.
  void show(double share, std::string_view what);
  void clear();

private:
  std::mutex mutex_;
  bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_{};
};

/// "[#####.....]  50 %  what".
[[nodiscard]] std::string bar(double share, std::string_view what);

/// "12/40, 3.1 requests/s, 9 s left".
[[nodiscard]] std::string pace(std::size_t done, std::size_t all,
                               std::chrono::duration<double> since);

} // namespace troupe::cli
