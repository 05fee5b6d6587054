#include "engine/models/families.hpp"

#include <fmt/core.h>

#include <array>
#include <vector>

namespace troupe::engine {

namespace {

constexpr std::array<model_family, 3> families{{
    {.defaults = {.name = "LlamaForCausalLM"}, .load = load_llama},
    {.defaults = {.name = "MistralForCausalLM", .sliding_window = true}, .load = load_llama},
    {.defaults = {.name = "Qwen3ForCausalLM", .head_dim = 128, .max_position_embeddings = 32768},
     .load = load_qwen3},
}};

} // namespace

std::span<const model_family> model_families() noexcept { return families; }

result<model_config> load_model_config(const std::filesystem::path& model_dir) {
  std::vector<architecture_defaults> known;
  for (const model_family& family : families)
    known.push_back(family.defaults);
  return read_model_config(model_dir, known);
}

result<std::unique_ptr<model>> load_model(const load_context& from) {
  for (const model_family& family : families)
    if (family.defaults.name == from.config.architecture)
      return family.load(from);
  return fail(errc::unsupported,
              fmt::format("no recipe for the architecture '{}'", from.config.architecture));
}

} // namespace troupe::engine
