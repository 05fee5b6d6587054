#include "engine/text/regex.hpp"

#include "engine/text/regex_dialect.hpp"
#include "engine/text/utf8.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace troupe::engine::text {

namespace {

constexpr std::size_t max_pattern_bytes = 64 * 1024;
constexpr std::size_t first_window_bytes = 256;
constexpr std::uint32_t first_match_limit = 1024;
/// What the interpreter may keep for backtracking, in KiB.
constexpr std::uint32_t heap_limit_kib = 64 * 1024;
constexpr std::uint64_t budget_base = 4'000'000;
constexpr std::uint64_t budget_per_byte = 256;

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

struct free_match_data {
  void operator()(pcre2_match_data* data) const noexcept { pcre2_match_data_free(data); }
};
struct free_match_context {
  void operator()(pcre2_match_context* context) const noexcept {
    pcre2_match_context_free(context);
  }
};
struct free_compile_context {
  void operator()(pcre2_compile_context* context) const noexcept {
    pcre2_compile_context_free(context);
  }
};

/// One search over one text: PCRE2's scratch and the budget.
class searcher {
public:
  searcher(const pcre2_code* code, std::string_view text)
      : code_{code}, text_{text}, data_{pcre2_match_data_create(1, nullptr)},
        context_{pcre2_match_context_create(nullptr)}, budget_{budget_base +
                                                               budget_per_byte * text.size()} {
    if (context_)
      pcre2_set_heap_limit(context_.get(), heap_limit_kib);
  }

  /// The end of the match that starts at `start`, or nothing.
  result<std::optional<std::size_t>> match_at(std::size_t start) {
    if (!data_ || !context_)
      return fail(errc::out_of_memory, "no memory to match a pattern");
    std::size_t window = first_window_bytes;
    std::uint32_t limit = first_match_limit;
    std::uint32_t options = 0;
    while (true) {
      const std::size_t end = window_end(start, window);
      const int code = attempt(start, end, limit, options);
      if (code == PCRE2_ERROR_NOMATCH)
        return std::nullopt;
      if (code >= 0)
        return pcre2_get_ovector_pointer(data_.get())[1];
      std::uint64_t cost = 0;
      if (code == PCRE2_ERROR_PARTIAL)
        cost = window *= 4;
      else if (code == PCRE2_ERROR_MATCHLIMIT)
        cost = limit = std::min<std::uint32_t>(limit, UINT32_MAX / 4) * 4;
      else if (code == PCRE2_ERROR_JIT_STACKLIMIT && options == 0)
        options = PCRE2_NO_JIT;
      else
        return fail(errc::limit_exceeded,
                    fmt::format("the pattern fails at byte {}: {}", start, message_of(code)));
      if (cost > budget_)
        return fail(errc::limit_exceeded,
                    fmt::format("the pattern needs too many steps at byte {} of the text", start));
      budget_ -= cost;
    }
  }

private:
  [[nodiscard]] std::size_t window_end(std::size_t start, std::size_t window) const {
    if (text_.size() - start <= window)
      return text_.size();
    std::size_t end = start + window;
    while (!is_boundary(text_, end))
      --end;
    return end;
  }

  int attempt(std::size_t start, std::size_t end, std::uint32_t limit, std::uint32_t options) {
    pcre2_set_match_limit(context_.get(), limit);
    if (end < text_.size())
      options |= PCRE2_PARTIAL_HARD;
    return pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text_.data()), end, start,
                       options | PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
  }

  const pcre2_code* code_;
  std::string_view text_;
  std::unique_ptr<pcre2_match_data, free_match_data> data_;
  std::unique_ptr<pcre2_match_context, free_match_context> context_;
  std::uint64_t budget_;
};

/// Which bytes a match may start with, as far as PCRE2 finds out; it studies only patterns that are
/// not anchored, so this one is compiled for the question alone.
std::array<bool, 256> starting_bytes(std::string_view pattern, std::uint32_t options,
                                     pcre2_compile_context* context) {
  int code = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* studied = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                      options, &code, &offset, context);
  std::array<bool, 256> starts{};
  const std::uint8_t* bitmap = nullptr;
  if (studied != nullptr)
    pcre2_pattern_info(studied, PCRE2_INFO_FIRSTBITMAP, &bitmap);
  for (std::size_t byte = 0; byte < starts.size(); ++byte)
    starts[byte] = bitmap == nullptr || ((bitmap[byte / 8] >> (byte % 8)) & 1U) != 0;
  pcre2_code_free(studied);
  return starts;
}

std::size_t next_boundary(std::string_view text, std::size_t at) {
  do
    ++at;
  while (!is_boundary(text, at));
  return at;
}

} // namespace

void regex::free_code::operator()(pcre2_real_code_8* code) const noexcept { pcre2_code_free(code); }

result<regex> regex::compile(std::string_view pattern) {
  if (pattern.size() > max_pattern_bytes)
    return fail(errc::limit_exceeded,
                fmt::format("the pattern has {} bytes; at most {} are allowed", pattern.size(),
                            max_pattern_bytes));
  const auto translated = translate_pattern(pattern);
  if (!translated)
    return fail(translated.error());
  const std::unique_ptr<pcre2_compile_context, free_compile_context> context{
      pcre2_compile_context_create(nullptr)};
  if (!context)
    return fail(errc::out_of_memory, "no memory to compile a pattern");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int code = 0;
  PCRE2_SIZE offset = 0;
  // Lines begin and end at every newline in Oniguruma, whatever the options.
  constexpr std::uint32_t options =
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  regex made;
  made.code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()),
                                 translated->size(), options | PCRE2_ANCHORED, &code, &offset,
                                 context.get()));
  if (!made.code_) {
    const bool large = code == 120 || code == 187 || code == 119;
    return fail(large ? errc::limit_exceeded : errc::invalid_argument,
                fmt::format("the pattern is not valid: {} (at byte {} of {})", message_of(code),
                            offset, *translated));
  }
  // Where there is no JIT on this machine the interpreter does the same, slower.
  pcre2_jit_compile(made.code_.get(), PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  std::uint32_t empty = 0;
  pcre2_pattern_info(made.code_.get(), PCRE2_INFO_MATCHEMPTY, &empty);
  made.can_be_empty_ = empty != 0;
  made.can_start_ = starting_bytes(*translated, options, context.get());
  return made;
}

result<std::vector<byte_range>> regex::find_all(std::string_view text) const {
  std::vector<byte_range> matches;
  searcher search{code_.get(), text};
  std::size_t at = 0;
  std::optional<std::size_t> last_end;
  while (at <= text.size()) {
    const bool possible =
        can_be_empty_ || (at < text.size() && can_start_[static_cast<std::uint8_t>(text[at])]);
    if (!possible) {
      at = next_boundary(text, at);
      continue;
    }
    const auto end = search.match_at(at);
    if (!end)
      return fail(end.error());
    if (!*end || (**end == at && last_end == at)) {
      at = next_boundary(text, at);
      continue;
    }
    // \K is refused and lookbehind consumes nothing, so no match ends before it starts.
    matches.push_back({at, **end});
    at = **end;
    last_end = at;
  }
  return matches;
}

} // namespace troupe::engine::text
