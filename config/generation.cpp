#include <fmt/core.h>

#include <algorithm>

#include "config/files.hpp"
#include "config/model_reader.hpp"
#include "config/reader.hpp"

namespace troupe::config {

namespace {

constexpr std::int64_t most_tokens = 1 << 28U;
constexpr std::size_t most_eos = 64;

/// vLLM lets -1 and 0 both mean all tokens.
std::optional<std::int64_t> as_top_k(const field& f) {
  const auto k = as_integer(f, -1, most_tokens);
  return k ? std::optional{std::max<std::int64_t>(*k, 0)} : std::nullopt;
}

std::optional<std::vector<token_id>> as_token_ids(const field& f) {
  std::vector<token_id> ids;
  if (f.value.kind != json_kind::array) {
    const auto id = as_integer(f, 0, most_tokens);
    return id ? std::optional{std::vector<token_id>{static_cast<token_id>(*id)}} : std::nullopt;
  }
  if (f.value.items.size() > most_eos)
    return f.wrong(fmt::format("must hold at most {} token ids", most_eos));
  for (const auto& item : f.value.items) {
    const auto id = as_integer({item, f.path, f.sink}, 0, most_tokens);
    if (!id)
      return std::nullopt;
    ids.push_back(static_cast<token_id>(*id));
  }
  return ids;
}

void read_keys(object_reader& r, generation_defaults& out) {
  r.read("temperature", out.temperature, number_in(0, 100));
  r.read("top_k", out.top_k, as_top_k);
  r.read("top_p", out.top_p, number_in(1e-9, 1));
  r.read("min_p", out.min_p, number_in(0, 1));
  r.read("max_new_tokens", out.max_tokens, integer_in(1, most_tokens));
  r.read("eos_token_id", out.eos_token_ids, as_token_ids);
}

/// Penalties that a model's makers recommend but that no sampler here applies.
void look_at_penalties(object_reader& r, bool refuse, diagnostic_sink& sink) {
  for (const auto& [name, neutral] : {std::pair{"repetition_penalty", 1.0},
                                      {"presence_penalty", 0.0},
                                      {"frequency_penalty", 0.0}}) {
    const auto* v = r.find(name);
    if (v == nullptr)
      continue;
    const auto n = as_number(r.at(name, *v), -100, 100);
    if (!n || *n == neutral)
      continue;
    auto message = fmt::format("{} is not applied: there is no {} yet; answers follow the other "
                               "parameters only",
                               *n, name);
    if (refuse)
      sink.error(errc::unsupported, v->from(), r.path_of(name), message + "; remove it");
    else
      sink.warn(v->from(), r.path_of(name), message);
  }
}

/// The file to read, or nothing when none is asked for or there is none.
std::optional<std::filesystem::path> generation_file(const model_config& model,
                                                     diagnostic_sink& sink) {
  const auto& choice = model.generation_config;
  if (*choice == "vllm")
    return std::nullopt;
  std::error_code ec;
  if (*choice == "auto") {
    auto file = *model.engine.model / "generation_config.json";
    return std::filesystem::exists(file, ec) ? std::optional{file} : std::nullopt;
  }
  auto named = resolve(*choice, choice.from);
  if (std::filesystem::is_directory(named, ec))
    named /= "generation_config.json";
  if (std::filesystem::exists(named, ec))
    return named;
  sink.error(errc::not_found, choice.from,
             join_path(join_path("models", model.name), "generation_config"),
             fmt::format("there is no '{}'; write \"auto\", \"vllm\" or a directory with "
                         "generation_config.json",
                         named.string()));
  return std::nullopt;
}

} // namespace

void read_generation(const json_value* overrides, const json_value* config, model_config& model,
                     diagnostic_sink& sink) {
  auto& out = model.generation;
  if (config != nullptr) {
    object_reader r{*config, "", sink};
    r.read("eos_token_id", out.eos_token_ids, as_token_ids);
  }
  if (const auto file = generation_file(model, sink)) {
    // Checkpoints carry many keys for other programs here; unknown ones are theirs.
    if (const auto json = read_json(*file, origin_kind::model_file, sink)) {
      object_reader r{*json, "", sink};
      read_keys(r, out);
      look_at_penalties(r, false, sink);
    }
  }
  if (overrides == nullptr)
    return;
  const auto path = join_path(join_path("models", model.name), "override_generation_config");
  object_reader r{*overrides, path, sink};
  read_keys(r, out);
  look_at_penalties(r, true, sink);
  for (const auto* name : {"do_sample", "transformers_version", "bos_token_id", "pad_token_id"})
    r.accept(name);
  r.refuse_unknown();
}

} // namespace troupe::config
