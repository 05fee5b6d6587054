#include "private_data.hpp"

#include <algorithm>
#include <regex>

namespace guard {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// What an address or a number may consist of; whatever else ends a run.
bool goes_on(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) ||
         std::string_view{"@._%+-() "}.find(c) != std::string_view::npos;
}

const std::regex& email() {
  static const std::regex pattern{
      R"([A-Za-z0-9_%+-][A-Za-z0-9._%+-]*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)"};
  return pattern;
}

/// The end of the phone number that begins at `at`, or `at` when none does.
std::size_t phone_end(std::string_view text, std::size_t at) {
  std::size_t digits = 0;
  std::size_t end = at;
  for (std::size_t i = at; i < text.size(); ++i) {
    const char c = text[i];
    if (is_digit(c)) {
      ++digits;
      end = i + 1;
    } else if (!(c == '+' && i == at) &&
               std::string_view{" -.()"}.find(c) == std::string_view::npos) {
      break;
    }
  }
  return digits >= 7 && digits <= 15 ? end : at;
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::string without_phones(std::string_view text, const std::string& with, unsigned& found) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const bool begins = (is_digit(text[i]) || text[i] == '+') &&
                        (i == 0 || (!is_letter(text[i - 1]) && !is_digit(text[i - 1])));
    const auto end = begins ? phone_end(text, i) : i;
    const bool touched = end < text.size() && is_letter(text[end]);
    if (end == i || touched) {
      out += text[i++];
      continue;
    }
    out += with;
    ++found;
    i = end;
  }
  return out;
}

} // namespace

std::string private_data::push(std::string_view piece) {
  held_ += piece;
  return decide(false);
}

std::string private_data::flush() { return decide(true); }

/// Lets go of everything before the last run that may still grow into something: a run without a
/// digit and without '@' matters from its last space on, since a word may be an address's begin.
std::string private_data::decide(bool all) {
  std::size_t keep = held_.size();
  if (!all) {
    while (keep > 0 && goes_on(held_[keep - 1]))
      --keep;
    const std::string_view run = std::string_view{held_}.substr(keep);
    if (run.size() > most_held || std::none_of(run.begin(), run.end(), is_digit)) {
      const auto space = run.rfind(' ');
      keep += space == std::string_view::npos ? 0 : space + 1;
    } else {
      // Words before the first digit cannot belong to its number.
      const auto digit = run.find_first_of("0123456789");
      const auto space = run.rfind(' ', digit);
      keep += space == std::string_view::npos ? 0 : space + 1;
    }
    if (held_.size() - keep > most_held)
      keep = held_.size();
  }
  const std::string decided = cleaned(std::string_view{held_}.substr(0, keep));
  held_.erase(0, keep);
  return decided;
}

std::string private_data::cleaned(std::string_view run) {
  std::string text{run};
  if (!with_.emails.empty() && text.find('@') != std::string::npos) {
    found_ += static_cast<unsigned>(std::distance(
        std::sregex_iterator{text.begin(), text.end(), email()}, std::sregex_iterator{}));
    // The replacement is text, not a pattern with references.
    std::string plain;
    std::smatch match;
    auto at = text.cbegin();
    while (std::regex_search(at, text.cend(), match, email())) {
      plain.append(at, match[0].first);
      plain += with_.emails;
      at = match[0].second;
    }
    plain.append(at, text.cend());
    text = std::move(plain);
  }
  return with_.phones.empty() ? text : without_phones(text, with_.phones, found_);
}

} // namespace guard
