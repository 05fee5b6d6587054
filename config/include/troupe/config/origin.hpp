#pragma once

#include <cstdint>
#include <string>

namespace troupe::config {

/// Who said a value. Later kinds do not beat earlier ones by number; the rules are:
/// command line > environment > files > measured > default, and two files never disagree silently.
enum class origin_kind : std::uint8_t {
  /// Nobody: Troupe's or vLLM's default; `text` may say how it was derived.
  default_value,
  /// cluster.json or model.json.
  user_file,
  /// A file that came with the weights: config.json or generation_config.json.
  model_file,
  /// A TROUPE_* variable.
  environment,
  /// `--set key=value`.
  command_line,
  /// A backend's auto_complete_config.
  auto_completion,
  /// Found by a measurement at load.
  measured,
};

/// Where a value comes from, exactly enough for a person to go there and change it.
struct origin {
  origin_kind kind = origin_kind::default_value;
  /// The file as it was named, or "command line", or "environment"; empty for defaults.
  std::string file;
  /// From 1; 0 where lines make no sense.
  std::uint32_t line = 0;
  /// The variable's name, the `--set` text, or how a default was derived.
  std::string text;
  /// From 1; 0 where it is not known.
  std::uint32_t column = 0;

  friend bool operator==(const origin&, const origin&) = default;
};

/// "cluster.json:7", "environment TROUPE_HTTP_PORT", "command line --set a=1", "measured",
/// "default".
[[nodiscard]] std::string to_string(const origin& from);

/// True when a person wrote the value: such a value is never overwritten by completion or
/// measurement.
[[nodiscard]] bool is_explicit(const origin& from) noexcept;

/// A value and who said it. Loaders hand these out; nobody changes them afterwards.
template <class T>
struct setting {
  T value{};
  origin from{};

  [[nodiscard]] const T& operator*() const noexcept { return value; }
  [[nodiscard]] const T* operator->() const noexcept { return &value; }
  friend bool operator==(const setting&, const setting&) = default;
};

} // namespace troupe::config
