#pragma once

#include "troupe/base/error.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace troupe::engine::text {

/// One value of a JSON file together with where it stands, so that every complaint names the file
/// and the path. Borrows the document: it must not outlive it.
class json_view {
public:
  json_view(const nlohmann::json& value, std::string_view file) : value_{&value}, file_{file} {}

  [[nodiscard]] const nlohmann::json& value() const noexcept { return *value_; }
  /// E.g. "$.pre_tokenizer.pretokenizers[1]".
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  /// How many steps below the root; what builds recursively refuses more than it can stand.
  [[nodiscard]] unsigned depth() const noexcept { return depth_; }

  /// The member `key` of this object.
  /// @errors invalid_argument: this is no object, or it has no such member
  [[nodiscard]] result<json_view> child(std::string_view key) const;
  /// The member `key`, or nothing where it is absent or null (or where this is no object).
  [[nodiscard]] std::optional<json_view> find(std::string_view key) const;
  /// The elements of this array.
  /// @errors invalid_argument: this is no array
  [[nodiscard]] result<std::vector<json_view>> elements() const;

  /// @errors invalid_argument: this is no string
  [[nodiscard]] result<std::string> text() const;
  /// @errors invalid_argument: this is no integer of [0, max]
  [[nodiscard]] result<std::uint64_t> natural(std::uint64_t max) const;
  /// The member `key` as a string.
  [[nodiscard]] result<std::string> text(std::string_view key) const;
  /// The member `key` as a boolean; `absent` where there is none.
  [[nodiscard]] result<bool> flag(std::string_view key, bool absent) const;

  /// "file: path: what".
  [[nodiscard]] tl::unexpected<error> refuse(errc code, std::string_view what) const;
  /// The usual refusal: "must be X, but is Y".
  [[nodiscard]] tl::unexpected<error> expected(std::string_view what) const;

private:
  json_view(const nlohmann::json& value, std::string_view file, std::string path, unsigned depth)
      : value_{&value}, file_{file}, path_{std::move(path)}, depth_{depth} {}

  const nlohmann::json* value_;
  std::string_view file_;
  std::string path_ = "$";
  unsigned depth_ = 0;
};

/// The contents of a whole file.
/// @errors not_found: there is no such file; io_failure: it cannot be read;
///         limit_exceeded: it is larger than `max_bytes`
[[nodiscard]] result<std::string> read_text_file(const std::filesystem::path& path,
                                                 std::size_t max_bytes);

/// Parses a JSON document; nesting is not bounded by the stack.
/// @errors corrupt_data: `text` is no JSON; the note names `file` and the place
[[nodiscard]] result<nlohmann::json> parse_json(std::string_view text, std::string_view file);

} // namespace troupe::engine::text
