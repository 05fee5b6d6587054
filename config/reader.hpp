#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/json_tree.hpp"
#include "config/sink.hpp"
#include "troupe/config/origin.hpp"

namespace troupe::config {

/// Numbers in messages: whole ones without exponent, since people type them so.
[[nodiscard]] std::string number_text(double n);

/// One value on its way into a setting: where it stands and whom to tell when it is wrong.
struct field {
  const json_value& value;
  std::string path;
  diagnostic_sink& sink;

  /// Reports `message` at this value; empty, so that converters can return it.
  std::nullopt_t wrong(std::string message, errc code = errc::invalid_argument) const;
};

/// Converters: each reports what is wrong and how to mend it, and is exact (no 8.0 for an
/// integer, no rounding, no "true" for true). Scalars of the command line and the environment
/// have no quotes, so there a number or a word serves as a string.
[[nodiscard]] std::optional<bool> as_bool(const field& f);
[[nodiscard]] std::optional<std::string> as_string(const field& f);
[[nodiscard]] std::optional<std::string> as_name(const field& f);
[[nodiscard]] std::optional<std::int64_t> as_integer(const field& f, std::int64_t least,
                                                     std::int64_t most);
/// NaN cannot be written; both ends of the range are allowed.
[[nodiscard]] std::optional<double> as_number(const field& f, double least, double most);
/// Relative paths are relative to the file that names them, else to the working directory.
[[nodiscard]] std::optional<std::filesystem::path> as_path(const field& f);
/// A host name or an address, without brackets.
[[nodiscard]] std::optional<std::string> as_host(const field& f);
/// Seconds with fractions, from a millisecond to a day.
[[nodiscard]] std::optional<std::chrono::milliseconds> as_seconds(const field& f);
[[nodiscard]] bool is_host(std::string_view text) noexcept;
[[nodiscard]] std::filesystem::path resolve(std::string_view path, const origin& from);

[[nodiscard]] inline auto integer_in(std::int64_t least, std::int64_t most) {
  return [=](const field& f) { return as_integer(f, least, most); };
}

[[nodiscard]] inline auto number_in(double least, double most) {
  return [=](const field& f) { return as_number(f, least, most); };
}

/// One of a table's names.
template <class E>
struct named {
  std::string_view name;
  E value;
};

/// The index of the value's text among `names`.
[[nodiscard]] std::optional<std::size_t> as_choice(const field& f,
                                                   const std::vector<std::string_view>& names);

template <class E>
[[nodiscard]] std::optional<E> as_enum(const field& f, std::span<const named<E>> table) {
  std::vector<std::string_view> names;
  for (const auto& row : table)
    names.push_back(row.name);
  const auto index = as_choice(f, names);
  return index ? std::optional<E>{table[*index].value} : std::nullopt;
}

/// Reads the members of one object and finally refuses those that nobody asked for.
class object_reader {
public:
  /// An object is expected; anything else is reported, and the reader is then empty.
  object_reader(const json_value& object, std::string path, diagnostic_sink& sink);

  /// The member, unless it is absent or null. Its name counts as known from now on.
  [[nodiscard]] const json_value* find(std::string_view name);
  [[nodiscard]] bool has(std::string_view name) const;
  [[nodiscard]] field at(std::string_view name, const json_value& value) const;
  [[nodiscard]] std::string path_of(std::string_view name) const;
  [[nodiscard]] const json_value& object() const noexcept { return *object_; }
  [[nodiscard]] bool is_object() const noexcept { return object_->kind == json_kind::object; }

  /// Sets `out` from the member when it is there and right.
  template <class T, class Convert>
  void read(std::string_view name, setting<T>& out, Convert&& convert) {
    const auto* value = find(name);
    if (value == nullptr)
      return;
    if (auto converted = std::forward<Convert>(convert)(at(name, *value)))
      out = setting<T>{static_cast<T>(*std::move(converted)), value->from()};
  }

  /// Marks a name as known without reading it.
  void accept(std::string_view name) { known_.push_back(name); }
  /// Reports all members that were never asked for, with the nearest known name.
  void refuse_unknown();

private:
  const json_value* object_;
  std::string path_;
  diagnostic_sink* sink_;
  std::vector<std::string_view> known_;
};

/// `key` below `path`, quoted where `--set` needs it.
[[nodiscard]] std::string join_path(std::string_view path, std::string_view key);

} // namespace troupe::config
