#pragma once

#include <string>
#include <vector>

#include "troupe/config/diagnostics.hpp"
#include "troupe/config/origin.hpp"

namespace troupe::config {

/// Collects findings; after the bound only the fact that there are more is kept, so that a hostile
/// file costs bounded memory.
class diagnostic_sink {
public:
  void error(errc code, const origin& at, std::string path, std::string message);
  void warn(const origin& at, std::string path, std::string message);

  /// True when further findings would be dropped.
  [[nodiscard]] bool full() const noexcept { return all_.size() >= limit; }
  [[nodiscard]] bool failed() const noexcept { return has_errors(all_); }
  [[nodiscard]] std::size_t size() const noexcept { return all_.size(); }
  /// Errors so far, dropped ones included.
  [[nodiscard]] std::size_t error_count() const noexcept { return errors_; }
  /// All findings by file and line, in the order in which a person mends them.
  [[nodiscard]] std::vector<diagnostic> take();

private:
  static constexpr std::size_t limit = 100;

  void add(diagnostic found);

  std::vector<diagnostic> all_;
  std::size_t errors_ = 0;
  bool dropped_ = false;
};

} // namespace troupe::config
