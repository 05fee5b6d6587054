#include "config/json_tree.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <numeric>

#include "config/text.hpp"

namespace troupe::config {

namespace {

/// Walks over the text and tells how far the lexer has read, which is how lines are known.
class tracking_iterator {
public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  tracking_iterator(const char* at, const char** reached) : at_{at}, reached_{reached} {}

  reference operator*() const { return *at_; }
  tracking_iterator& operator++() {
    *reached_ = ++at_;
    return *this;
  }
  tracking_iterator operator++(int) {
    auto old = *this;
    ++*this;
    return old;
  }
  friend bool operator==(const tracking_iterator& a, const tracking_iterator& b) {
    return a.at_ == b.at_;
  }
  friend bool operator!=(const tracking_iterator& a, const tracking_iterator& b) {
    return a.at_ != b.at_;
  }

private:
  const char* at_;
  const char** reached_;
};

/// Builds the tree from nlohmann's events. A pointer to an open container stays valid, because
/// its siblings are added only after it is closed.
class tree_builder {
public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  tree_builder(std::string_view text, std::shared_ptr<const json_source> source,
               diagnostic_sink& sink, const json_limits& limits)
      : text_{text}, reached_{text.data()}, counted_{text.data()}, source_{std::move(source)},
        sink_{sink}, limits_{limits} {}

  [[nodiscard]] const char** reached() { return &reached_; }
  [[nodiscard]] json_value take() { return std::move(root_); }

  bool null() { return add(json_kind::null) != nullptr; }
  bool boolean(bool truth) {
    auto* v = add(json_kind::boolean);
    if (v != nullptr)
      v->truth = truth;
    return v != nullptr;
  }
  bool number_integer(number_integer_t n) {
    return add_number(json_kind::integer, static_cast<double>(n), std::to_string(n));
  }
  bool number_unsigned(number_unsigned_t n) {
    return add_number(json_kind::integer, static_cast<double>(n), std::to_string(n));
  }
  bool number_float(number_float_t n, const string_t& literal) {
    // The lexer hands over integers beyond 64 bits as floats; they stay integers, out of any range.
    const bool whole = literal.find_first_of(".eE") == string_t::npos;
    return add_number(whole ? json_kind::integer : json_kind::real, n, literal);
  }
  bool string(string_t& s) {
    auto* v = add(json_kind::string);
    if (v != nullptr)
      v->text = std::move(s);
    return v != nullptr;
  }
  bool binary(binary_t&) { return false; }
  bool start_object(std::size_t) { return open(json_kind::object); }
  bool start_array(std::size_t) { return open(json_kind::array); }
  bool end_array() {
    open_.pop_back();
    return true;
  }
  bool end_object() {
    report_duplicates(*open_.back());
    open_.pop_back();
    return true;
  }
  bool key(string_t& name) {
    open_.back()->members.push_back({std::move(name), line(), {}});
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& e) {
    fail(errc::corrupt_data, explain_syntax(e.what()));
    return false;
  }

private:
  [[nodiscard]] origin here() { return {source_->kind, source_->file, line(), source_->text}; }

  /// The line of the last token. After a number the lexer has read one character too many.
  std::uint32_t line(bool after_number = false) {
    const char* end = reached_;
    if (after_number && end > counted_ && end[-1] == '\n')
      --end;
    line_ += static_cast<std::uint32_t>(std::count(counted_, end, '\n'));
    counted_ = end;
    return line_;
  }

  void fail(errc code, std::string message) { sink_.error(code, here(), "", std::move(message)); }

  json_value* add(json_kind kind, bool is_number = false) {
    if (++values_ > limits_.values) {
      fail(errc::limit_exceeded, fmt::format("more than {} values in one file", limits_.values));
      return nullptr;
    }
    json_value* v = &root_;
    if (!open_.empty()) {
      auto& parent = *open_.back();
      v = parent.kind == json_kind::array ? &parent.items.emplace_back()
                                          : &parent.members.back().value;
    }
    v->kind = kind;
    v->line = line(is_number);
    v->source = source_;
    return v;
  }

  bool add_number(json_kind kind, double n, std::string literal) {
    auto* v = add(kind, true);
    if (v == nullptr)
      return false;
    v->number = n;
    v->text = std::move(literal);
    return true;
  }

  bool open(json_kind kind) {
    if (open_.size() >= limits_.depth) {
      fail(errc::limit_exceeded, fmt::format("more than {} levels deep", limits_.depth));
      return false;
    }
    auto* v = add(kind);
    if (v != nullptr)
      open_.push_back(v);
    return v != nullptr;
  }

  void report_duplicates(const json_value& object) {
    std::vector<const json_member*> sorted;
    for (const auto& m : object.members)
      sorted.push_back(&m);
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const auto* a, const auto* b) { return a->key < b->key; });
    for (std::size_t i = 1; i < sorted.size() && !sink_.full(); ++i) {
      if (sorted[i]->key != sorted[i - 1]->key)
        continue;
      sink_.error(errc::conflict, {source_->kind, source_->file, sorted[i]->line, source_->text},
                  "",
                  fmt::format("the key {} is given twice, on lines {} and {}; keep one",
                              in_quotes(sorted[i]->key), sorted[i - 1]->line, sorted[i]->line));
    }
  }

  /// nlohmann's text without its own position, in printable characters, with a hint where people
  /// often go wrong.
  [[nodiscard]] std::string explain_syntax(std::string_view what) const {
    for (const std::string_view mark : {"] ", "column "}) {
      if (const auto at = what.find(mark); at != std::string_view::npos)
        what.remove_prefix(at + mark.size());
    }
    if (const auto at = what.find(": "); at != std::string_view::npos && at < 8)
      what.remove_prefix(at + 2);
    std::string shown{what.substr(0, 200)};
    std::replace_if(
        shown.begin(), shown.end(), [](char c) { return c < 0x20 || c == 0x7F; }, '?');
    const auto from = static_cast<std::size_t>(reached_ - text_.data());
    const auto around = text_.substr(from < 2 ? 0 : from - 2, 10);
    if (around.find("//") != std::string_view::npos ||
        around.find("/*") != std::string_view::npos || around.find('#') != std::string_view::npos)
      shown += "; JSON has no comments, remove it";
    if (around.find("NaN") != std::string_view::npos ||
        around.find("Inf") != std::string_view::npos)
      shown += "; JSON has no NaN and no Infinity, write a number";
    return "not valid JSON: " + shown;
  }

  std::string_view text_;
  const char* reached_;
  const char* counted_;
  std::uint32_t line_ = 1;
  std::uint32_t values_ = 0;
  std::shared_ptr<const json_source> source_;
  diagnostic_sink& sink_;
  json_limits limits_;
  json_value root_;
  std::vector<json_value*> open_;
};

} // namespace

std::optional<json_value> parse_json(std::string_view text,
                                     std::shared_ptr<const json_source> source,
                                     diagnostic_sink& sink, const json_limits& limits) {
  const origin start{source->kind, source->file, 1, source->text};
  if (text.size() > limits.bytes) {
    sink.error(errc::limit_exceeded, start, "",
               fmt::format("{} bytes are more than the {} allowed", text.size(), limits.bytes));
    return std::nullopt;
  }
  tree_builder builder{text, std::move(source), sink, limits};
  const tracking_iterator first{text.data(), builder.reached()};
  const tracking_iterator last{text.data() + text.size(), builder.reached()};
  try {
    if (nlohmann::json::sax_parse(first, last, &builder))
      return builder.take();
  } catch (const std::exception& e) {
    sink.error(errc::internal, start, "", fmt::format("the JSON reader failed: {}", e.what()));
  }
  return std::nullopt;
}

} // namespace troupe::config
