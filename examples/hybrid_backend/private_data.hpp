#pragma once

#include <string>
#include <string_view>

namespace guard {

/// What stands in the place of what was found; an empty text leaves such data alone.
struct replacements {
  std::string emails;
  std::string phones;
};

/// Replaces e-mail addresses and phone numbers in a text that arrives in pieces of any size. What
/// may still become one is held back until it is decided, at most `most_held` bytes.
///
/// An e-mail address is a run of the characters that addresses have, with one '@' in it, a dot
/// behind that, and something on both sides. A phone number is a run of digits, spaces, '-', '.',
/// '(', ')' with 7 to 15 digits, perhaps behind a '+', that no letter touches.
class private_data {
public:
  static constexpr std::size_t most_held = 320;

  explicit private_data(replacements with) : with_{std::move(with)} {}

  /// The text that is decided now that `piece` has come.
  [[nodiscard]] std::string push(std::string_view piece);
  /// The rest: nothing follows.
  [[nodiscard]] std::string flush();
  /// How many were replaced.
  [[nodiscard]] unsigned found() const noexcept { return found_; }

private:
  [[nodiscard]] std::string decide(bool all);
  [[nodiscard]] std::string cleaned(std::string_view run);

  replacements with_;
  std::string held_;
  unsigned found_ = 0;
};

} // namespace guard
