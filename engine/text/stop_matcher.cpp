#include "engine/text/stop_matcher.hpp"

#include "engine/text/utf8.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace troupe::engine::text {

namespace {

constexpr std::size_t max_stops = 1024;
constexpr std::size_t max_stop_bytes = 64 * 1024;

/// For each prefix, the length of its longest proper suffix that is a prefix too.
std::vector<std::uint32_t> fallbacks_of(std::string_view text) {
  std::vector<std::uint32_t> fallback(text.size(), 0);
  std::uint32_t length = 0;
  for (std::size_t i = 1; i < text.size(); ++i) {
    while (length > 0 && text[i] != text[length])
      length = fallback[length - 1];
    if (text[i] == text[length])
      ++length;
    fallback[i] = length;
  }
  return fallback;
}

} // namespace

result<stop_matcher> stop_matcher::make(std::span<const std::string> stops, bool include_match) {
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < stops.size(); ++i) {
    if (stops[i].empty())
      return fail(errc::invalid_argument, fmt::format("stop string {} is empty", i));
    if (find_invalid_utf8(stops[i]) != std::string::npos)
      return fail(errc::invalid_argument, fmt::format("stop string {} is not valid UTF-8", i));
    bytes += stops[i].size();
  }
  if (stops.size() > max_stops || bytes > max_stop_bytes)
    return fail(errc::limit_exceeded,
                fmt::format("{} stop strings of {} bytes together; at most {} of {} are allowed",
                            stops.size(), bytes, max_stops, max_stop_bytes));
  stop_matcher made;
  made.include_match_ = include_match;
  for (const std::string& stop : stops)
    made.needles_.push_back({stop, fallbacks_of(stop), 0});
  return made;
}

std::string stop_matcher::push(std::string_view text) {
  if (matched_)
    return {};
  if (needles_.empty())
    return std::string{text};
  std::size_t longest = 0;
  for (const char c : text) {
    held_ += c;
    longest = 0;
    for (std::size_t i = 0; i < needles_.size(); ++i) {
      needle& n = needles_[i];
      while (n.progress > 0 && n.text[n.progress] != c)
        n.progress = n.fallback[n.progress - 1];
      if (n.text[n.progress] == c)
        ++n.progress;
      longest = std::max<std::size_t>(longest, n.progress);
      const bool whole = n.progress == n.text.size();
      if (whole && (!matched_ || n.text.size() > needles_[*matched_].text.size()))
        matched_ = i;
    }
    if (matched_) {
      std::string before = std::exchange(held_, {});
      if (!include_match_)
        before.resize(before.size() - needles_[*matched_].text.size());
      return before;
    }
  }
  if (text.empty())
    return {};
  std::string certain = held_.substr(0, held_.size() - longest);
  held_.erase(0, held_.size() - longest);
  return certain;
}

std::string stop_matcher::flush() {
  for (needle& n : needles_)
    n.progress = 0;
  return std::exchange(held_, {});
}

} // namespace troupe::engine::text
