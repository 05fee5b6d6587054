#include "engine/text/pattern.hpp"

#include <fmt/format.h>

#include <cstring>

namespace troupe::engine::text {

result<pattern> pattern::load(const json_view& at) {
  pattern made;
  if (const auto literal = at.find("String")) {
    auto text = literal->text();
    if (!text)
      return fail(text.error());
    if (text->empty())
      return literal->refuse(errc::invalid_argument, "is empty; a pattern must match something");
    made.literal_ = std::move(*text);
    return made;
  }
  const auto expression = at.child("Regex");
  if (!expression)
    return at.refuse(errc::invalid_argument, "must be {\"String\": ...} or {\"Regex\": ...}");
  const auto text = expression->text();
  if (!text)
    return fail(text.error());
  auto compiled = regex::compile(*text);
  if (!compiled)
    return expression->refuse(compiled.error().code, compiled.error().note);
  made.regex_ = std::move(*compiled);
  return made;
}

result<std::vector<byte_range>> pattern::find_all(std::string_view text) const {
  if (regex_)
    return regex_->find_all(text);
  std::vector<byte_range> matches;
  std::size_t at = 0;
  while (at < text.size()) {
    // memmem is linear also for hostile pairs of text and pattern; string_view::find is not.
    const void* found =
        ::memmem(text.data() + at, text.size() - at, literal_.data(), literal_.size());
    if (found == nullptr)
      break;
    const auto begin = static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
    at = begin + literal_.size();
    matches.push_back({begin, at});
  }
  return matches;
}

result<void> pattern::replace_all(std::string& text, std::string_view content) const {
  const auto matches = find_all(text);
  if (!matches)
    return fail(matches.error());
  if (matches->empty())
    return {};
  if (text.size() + matches->size() * content.size() > max_text_bytes)
    return fail(
        errc::limit_exceeded,
        fmt::format("the text grows beyond {} bytes while it is normalized", max_text_bytes));
  std::string replaced;
  std::size_t last = 0;
  for (const byte_range& match : *matches) {
    replaced.append(text, last, match.begin - last);
    replaced += content;
    last = match.end;
  }
  replaced.append(text, last);
  text = std::move(replaced);
  return {};
}

} // namespace troupe::engine::text
