#pragma once

#include <string>

#include "config/json_tree.hpp"
#include "config/reader.hpp"
#include "config/sink.hpp"
#include "troupe/config/model.hpp"

namespace troupe::config {

[[nodiscard]] json_value empty_object(std::string file);

/// One object with the engine arguments of model.json and of the cluster file's section. What both
/// files say must be equal; the environment and the command line beat both. Reads the section's own
/// keys (instances, max_queued_requests) into `model`; `tensor_parallel` becomes
/// tensor_parallel_size.
[[nodiscard]] json_value merge_sections(const json_value& model_json, const json_value* section,
                                        model_config& model, diagnostic_sink& sink);

/// Checks what is left against the tables of arguments: those without effect are listed in `model`,
/// unsupported ones and unknown ones are errors.
void refuse_by_tables(object_reader& arguments, model_config& model, diagnostic_sink& sink);

} // namespace troupe::config
