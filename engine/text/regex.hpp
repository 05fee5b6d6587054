#pragma once

#include "troupe/base/error.hpp"

#include <array>
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;

namespace troupe::engine::text {

/// A half-open range of bytes of a text.
struct byte_range {
  std::size_t begin = 0;
  std::size_t end = 0;

  friend bool operator==(const byte_range&, const byte_range&) = default;
};

/// A compiled pattern of Oniguruma's syntax, as tokenizer.json has them, run by PCRE2. Immutable:
/// any number of threads may search with it at once.
///
/// The work of a search is bounded by the length of the text, whatever the pattern. PCRE2 alone
/// bounds backtracking but not the repeated scanning of a long text, so that a pattern such as
/// `\s*x|.` is quadratic. Here every attempt is anchored and sees a window of the text; a partial
/// match widens the window, a match limit that is reached is raised, and both are paid from a
/// budget.
class regex {
public:
  /// @errors unsupported: see translate_pattern; invalid_argument: the pattern is no pattern;
  ///         limit_exceeded: it is longer than 64 KiB, or too large when compiled
  [[nodiscard]] static result<regex> compile(std::string_view pattern);

  /// All matches from left to right, as Oniguruma's scan finds them: no empty match directly behind
  /// another match. `text` must be valid UTF-8.
  /// @errors limit_exceeded: the pattern needs more than a fixed number of steps per byte of `text`
  [[nodiscard]] result<std::vector<byte_range>> find_all(std::string_view text) const;

private:
  struct free_code {
    void operator()(pcre2_real_code_8* code) const noexcept;
  };

  std::unique_ptr<pcre2_real_code_8, free_code> code_;
  /// Which bytes a match may start with.
  std::array<bool, 256> can_start_{};
  bool can_be_empty_ = false;
};

} // namespace troupe::engine::text
