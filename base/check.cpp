#include "troupe/base/check.hpp"

#include "troupe/base/log.hpp"

#include <cstdlib>

namespace troupe::detail {

void check_failed(std::string_view expression, std::string_view file, int line,
                  std::string_view note) {
  log_critical("check failed: {} at {}:{}: {}", expression, file, line, note);
  flush_log();
  std::abort();
}

} // namespace troupe::detail
