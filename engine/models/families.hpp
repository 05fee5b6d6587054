#pragma once

#include "engine/models/loader.hpp"
#include "engine/models/model.hpp"

#include <filesystem>
#include <memory>
#include <span>

namespace troupe::engine {

/// One row of the table of families: an architecture by its name in config.json, and its recipe.
struct model_family {
  architecture_defaults defaults;
  result<std::unique_ptr<model>> (*load)(const load_context& from) = nullptr;
};

/// All families that are served.
[[nodiscard]] std::span<const model_family> model_families() noexcept;

/// Reads config.json of a model folder for the families that are served.
/// @errors as read_model_config; unsupported names the architectures that there are
[[nodiscard]] result<model_config> load_model_config(const std::filesystem::path& model_dir);

/// Loads the model that `from.config` names with its family's recipe.
/// @errors as the recipe's
[[nodiscard]] result<std::unique_ptr<model>> load_model(const load_context& from);

// The recipes, one file each.
[[nodiscard]] result<std::unique_ptr<model>> load_llama(const load_context& from);
[[nodiscard]] result<std::unique_ptr<model>> load_qwen3(const load_context& from);

} // namespace troupe::engine
