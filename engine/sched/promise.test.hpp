#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>

namespace troupe::engine::test {

/// Something under test did not keep what it promises. Thrown, so that a test that runs a whole
/// world of machines ends where the promise is broken; Catch and the simulation's driver report it.
class broken_promise : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void throw_broken(const char* promise, const char* file, int line,
                                      const std::string& note) {
  throw broken_promise{
      fmt::format("{}:{}: {}{}{}", file, line, promise, note.empty() ? "" : ": ", note)};
}

} // namespace troupe::engine::test

/// Throws when `expression` is false. Further arguments are a format string of fmt and its values.
#define TROUPE_PROMISE(expression, ...)                                                            \
  do {                                                                                             \
    if (!(expression)) [[unlikely]]                                                                \
      ::troupe::engine::test::throw_broken(#expression, __FILE__, __LINE__,                        \
                                           std::string{__VA_OPT__(::fmt::format(__VA_ARGS__))});   \
  } while (false)
