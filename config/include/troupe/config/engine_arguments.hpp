#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace troupe::config {

/// The JSON type an argument takes; null always means "not given".
enum class argument_kind : std::uint8_t {
  boolean,
  integer,
  number,
  string,
  string_or_list,
  list,
  object,
  any,
};

/// One engine argument of model.json, with vLLM's name.
struct engine_argument {
  std::string_view name;
  argument_kind kind = argument_kind::any;
  /// The range of integer and number, both ends allowed.
  double least = 0;
  double most = 0;
  /// Honoured ones: the default in words. Not supported ones: the values that ask for nothing,
  /// separated by '|' and therefore accepted.
  std::string_view usual;
  /// What it does, why it does nothing here, or what to do instead.
  std::string_view help;
};

/// Read and obeyed.
[[nodiscard]] std::span<const engine_argument> honoured_arguments() noexcept;
/// Accepted and listed by `troupe check`; they change nothing here.
[[nodiscard]] std::span<const engine_argument> ineffective_arguments() noexcept;
/// A load error that says so, unless the value asks for nothing.
[[nodiscard]] std::span<const engine_argument> unsupported_arguments() noexcept;

} // namespace troupe::config
