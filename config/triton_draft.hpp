#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "config/sink.hpp"
#include "proto/model_config.pb.h"
#include "troupe/config/origin.hpp"

namespace troupe::config {

/// A configuration while it is read and completed: the message, and who said each of its fields.
struct triton_draft {
  inference::ModelConfig message;
  /// By path: "max_batch_size", "input[0]", "input[0].dims", "parameters[\"PROCESS\"]". What nobody
  /// said is not in it, so a written zero differs from none.
  std::map<std::string, origin> origins;
  /// The file, or "load request"; where nothing was written, the model's directory.
  std::string file;

  /// Who said it; a default when nobody did.
  [[nodiscard]] origin from(const std::string& path) const;
  [[nodiscard]] bool said(const std::string& path) const { return origins.contains(path); }
  /// The place of the field, or else of the file.
  [[nodiscard]] origin place(const std::string& path) const;
};

/// Parses protobuf's text format. What is wrong goes to `sink` with line and column; empty then.
/// Unknown fields, keys and singular fields that are given twice, text that is not UTF-8 and lists
/// of more than 1,024 elements are wrong.
[[nodiscard]] std::optional<triton_draft>
parse_pbtxt(std::string_view text, const std::string& file, diagnostic_sink& sink);

/// Parses the same message as JSON, as a load request brings it along.
[[nodiscard]] std::optional<triton_draft> parse_config_json(std::string_view text,
                                                            diagnostic_sink& sink);

/// `path[index]` and `path["key"]`.
[[nodiscard]] std::string element_path(std::string_view path, std::size_t index);
[[nodiscard]] std::string element_path(std::string_view path, std::string_view key);

} // namespace troupe::config
