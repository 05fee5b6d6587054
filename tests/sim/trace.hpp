#pragma once

#include "troupe/base/clock.hpp"
#include "troupe/base/prng.hpp"

#include <fmt/core.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <utility>

namespace troupe::sim {

/// What happened in a run: a digest always, sentences only when somebody wants to read them.
class trace {
public:
  enum class level : std::uint8_t { digest, keep, print };

  explicit trace(level how) : how_{how} {}

  /// Notes an event. `what` is a format string of fmt for the values.
  template <class... Values>
  void note(time_point now, fmt::format_string<Values...> what, Values&&... values) {
    mix(static_cast<std::uint64_t>(now.time_since_epoch().count()));
    (mix_value(values), ...);
    if (how_ == level::digest)
      return;
    const std::chrono::duration<double, std::milli> at = now.time_since_epoch();
    add(fmt::format("{:12.3f} ms  {}", at.count() - start_ms,
                    fmt::format(what, std::forward<Values>(values)...)));
  }

  [[nodiscard]] std::uint64_t digest() const { return digest_; }
  [[nodiscard]] const std::deque<std::string>& last() const { return kept_; }

private:
  static constexpr double start_ms = 3'600'000;
  static constexpr std::size_t kept_most = 80;

  void mix(std::uint64_t word) { digest_ = splitmix64{digest_ ^ word}(); }

  template <class Value>
  void mix_value(const Value& value) {
    if constexpr (std::is_integral_v<Value>)
      mix(static_cast<std::uint64_t>(value));
    else
      for (const char c : std::string_view{value})
        mix(static_cast<unsigned char>(c));
  }

  void add(std::string line) {
    if (how_ == level::print) {
      fmt::print("{}\n", line);
      std::fflush(stdout);
    }
    kept_.push_back(std::move(line));
    if (kept_.size() > kept_most)
      kept_.pop_front();
  }

  level how_;
  std::uint64_t digest_ = 0;
  std::deque<std::string> kept_;
};

} // namespace troupe::sim
