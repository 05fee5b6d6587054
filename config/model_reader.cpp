#include "config/model_reader.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "config/files.hpp"
#include "config/hf_cache.hpp"
#include "config/merge.hpp"
#include "config/reader.hpp"
#include "config/text.hpp"
#include "troupe/base/check.hpp"
#include "troupe/config/engine_arguments.hpp"

namespace troupe::config {

namespace {

constexpr std::array<named<scheduling_policy>, 2> policies{{
    {"fcfs", scheduling_policy::fcfs},
    {"priority", scheduling_policy::priority},
}};

constexpr std::size_t most_names = 64;

std::optional<dtype_choice> as_dtype(const field& f) {
  constexpr std::array<named<dtype_choice>, 6> dtypes{{
      {"auto", dtype_choice::auto_detect},
      {"bfloat16", dtype_choice::bfloat16},
      {"float32", dtype_choice::float32},
      {"float", dtype_choice::float32},
      {"float16", dtype_choice::float16},
      {"half", dtype_choice::float16},
  }};
  return as_enum<dtype_choice>(f, dtypes);
}

std::optional<load_format> as_load_format(const field& f) {
  constexpr std::array<named<load_format>, 3> formats{{
      {"auto", load_format::auto_detect},
      {"safetensors", load_format::safetensors},
      {"dummy", load_format::dummy},
  }};
  constexpr std::string_view vllms[] = {"pt",
                                        "npcache",
                                        "tensorizer",
                                        "bitsandbytes",
                                        "gguf",
                                        "mistral",
                                        "hf",
                                        "sharded_state",
                                        "fastsafetensors",
                                        "runai_streamer",
                                        "runai_streamer_sharded"};
  if (std::find(std::begin(vllms), std::end(vllms), f.value.text) != std::end(vllms))
    return f.wrong(fmt::format("the format {} is not supported; convert the weights to safetensors",
                               in_quotes(f.value.text)),
                   errc::unsupported);
  return as_enum<load_format>(f, formats);
}

std::optional<std::int64_t> as_block_size(const field& f) {
  const auto n = as_integer(f, 8, 128);
  if (n && (*n & (*n - 1)) != 0)
    return f.wrong(fmt::format("must be 8, 16, 32, 64 or 128, not {}", *n));
  return n;
}

std::optional<std::string> as_served_name(const field& f) {
  auto name = as_string(f);
  if (name && (name->empty() || name->size() > 256 || !is_clean_text(*name)))
    return f.wrong(
        fmt::format("{} is not a name; use 1 to 256 printable characters", in_quotes(*name)));
  return name;
}

std::optional<std::vector<std::string>> as_names(const field& f) {
  if (f.value.kind != json_kind::array) {
    auto name = as_served_name(f);
    return name ? std::optional{std::vector<std::string>{std::move(*name)}} : std::nullopt;
  }
  if (f.value.items.empty() || f.value.items.size() > most_names)
    return f.wrong(fmt::format("must hold 1 to {} names", most_names));
  std::vector<std::string> names;
  for (std::size_t i = 0; i < f.value.items.size(); ++i) {
    auto name = as_served_name({f.value.items[i], join_path(f.path, std::to_string(i)), f.sink});
    if (name)
      names.push_back(std::move(*name));
  }
  return names.size() == f.value.items.size() ? std::optional{names} : std::nullopt;
}

/// The text itself when it looks like a template, else the text of the file it names.
std::optional<std::string> as_template(const field& f) {
  auto text = as_string(f);
  if (!text || text->find_first_of("{\n") != std::string::npos)
    return text;
  const auto file = as_path(f);
  if (!file)
    return std::nullopt;
  auto content = read_file(*file, json_limits{}.bytes);
  if (!content)
    return f.wrong(fmt::format("the template file '{}': {}", file->string(), content.error().note),
                   content.error().code);
  return std::move(*content);
}

/// A KV cache of another type than the computation's cannot be had, so naming a type is only right
/// when it is the type of the computation.
void check_kv_dtype(object_reader& r, const engine_args& args) {
  constexpr std::array<named<dtype_choice>, 3> types{{
      {"bfloat16", dtype_choice::bfloat16},
      {"float16", dtype_choice::float16},
      {"float32", dtype_choice::float32},
  }};
  const auto* v = r.find("kv_cache_dtype");
  if (v == nullptr)
    return;
  const auto* const same = std::ranges::find(types, v->text, &named<dtype_choice>::name);
  if (same != types.end() && *args.dtype != same->value)
    (void)r.at("kv_cache_dtype", *v)
        .wrong(fmt::format("'{}' is not the type of the computation (dtype by {}); write auto, or "
                           "give both the same type",
                           v->text, to_string(args.dtype.from)),
               errc::conflict);
}

/// A path, or else the id of a model in the local cache of Hugging Face.
std::optional<std::filesystem::path> as_model_path(const field& f, const model_context& context,
                                                   const std::string& revision) {
  auto path = as_path(f);
  std::error_code ec;
  if (!path || std::filesystem::exists(*path, ec) || !is_hub_id(f.value.text))
    return path;
  const auto hub = hub_directory(context.options.environment);
  const auto found = find_in_hub(hub, f.value.text, revision);
  if (found)
    return *found;
  return f.wrong(fmt::format("there is no directory '{}', and {}; models are not downloaded, so "
                             "fetch it first, or give its path, relative to the file that names it",
                             path->string(), found.error().note),
                 found.error().code);
}

/// The range of an argument as its table's row says.
auto in_row(std::string_view name) {
  const auto rows = honoured_arguments();
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const auto& r) { return r.name == name; });
  TROUPE_CHECK(row != rows.end(), "no row for argument {}", name);
  return integer_in(static_cast<std::int64_t>(row->least), static_cast<std::int64_t>(row->most));
}

void read_engine(object_reader& r, const model_context& context, engine_args& out) {
  const auto read_integer = [&](std::string_view name, auto& into) {
    r.read(name, into, in_row(name));
  };
  r.read("revision", out.revision, as_string);
  const auto as_model = [&](const field& f) { return as_model_path(f, context, *out.revision); };
  r.read("model", out.model, as_model);
  r.read("tokenizer", out.tokenizer, as_model);
  r.read("served_model_name", out.served_model_name, as_names);
  r.read("chat_template", out.chat_template, as_template);
  r.read("dtype", out.dtype, as_dtype);
  r.read("load_format", out.load_format, as_load_format);
  read_integer("max_model_len", out.max_model_len);
  read_integer("max_num_seqs", out.max_num_seqs);
  read_integer("max_num_batched_tokens", out.max_num_batched_tokens);
  r.read("block_size", out.block_size, as_block_size);
  read_integer("kv_cache_memory_bytes", out.kv_cache_memory_bytes);
  read_integer("num_gpu_blocks_override", out.num_gpu_blocks_override);
  r.read("gpu_memory_utilization", out.gpu_memory_utilization, number_in(0.01, 1));
  r.read("swap_space", out.swap_space, number_in(0, 1e6));
  r.read("deterministic", out.deterministic, as_bool);
  r.read("enable_prefix_caching", out.enable_prefix_caching, as_bool);
  r.read("enable_chunked_prefill", out.enable_chunked_prefill, as_bool);
  read_integer("long_prefill_token_threshold", out.long_prefill_token_threshold);
  r.read("scheduling_policy", out.scheduling_policy,
         [](const field& f) { return as_enum<scheduling_policy>(f, policies); });
  read_integer("seed", out.seed);
  read_integer("tensor_parallel_size", out.tensor_parallel_size);
  read_integer("cpu_threads", out.cpu_threads);
}

/// Where the weights stand: config.json must be there, because everything else depends on it.
std::optional<json_value> read_hf_config(const model_config& model, diagnostic_sink& sink) {
  const auto& directory = model.engine.model;
  std::error_code ec;
  if (!std::filesystem::is_directory(*directory, ec)) {
    sink.error(errc::not_found, directory.from, join_path(join_path("models", model.name), "model"),
               fmt::format("there is no directory '{}'; models are not downloaded, so fetch it "
                           "first and give its path, relative to the file that names it",
                           directory->string()));
    return std::nullopt;
  }
  return read_json(*directory / "config.json", origin_kind::model_file, sink);
}

/// The engine says the same at load; here it is said before anything is started.
void check_architecture(const json_value& config, const build_capabilities& can,
                        diagnostic_sink& sink) {
  const auto* list = config.find("architectures");
  if (list == nullptr || list->items.size() != 1 || can.architectures.empty())
    return;
  const auto& name = list->items.front();
  if (std::find(can.architectures.begin(), can.architectures.end(), name.text) !=
      can.architectures.end())
    return;
  const std::vector<std::string_view> known{can.architectures.begin(), can.architectures.end()};
  sink.error(errc::unsupported, name.from(), "architectures",
             fmt::format("architecture {} is not served; there are {}{}", in_quotes(name.text),
                         choices(known), did_you_mean(name.text, known)));
}

void complete_length(const json_value& config, model_config& model, diagnostic_sink& sink) {
  const auto* text = config.find("text_config");
  const auto* length = config.find("max_position_embeddings");
  if (length == nullptr && text != nullptr)
    length = text->find("max_position_embeddings");
  auto& wanted = model.engine.max_model_len;
  if (length == nullptr || length->kind == json_kind::null)
    return;
  const auto most = as_integer({*length, "max_position_embeddings", sink}, 2, 1 << 28U);
  if (!most)
    return;
  if (!*wanted)
    wanted = {static_cast<std::uint32_t>(*most), length->from()};
  else if (**wanted > *most)
    sink.error(errc::conflict, wanted.from,
               join_path(join_path("models", model.name), "max_model_len"),
               fmt::format("{} (by {}) is more than max_position_embeddings {} (by {}); lower it, "
                           "or leave it out",
                           **wanted, to_string(wanted.from), *most, to_string(length->from())));
}

void complete(model_config& model, const setting<std::uint32_t>& cpu_threads) {
  auto& e = model.engine;
  const auto unset = [](const auto& s) { return s.from.kind == origin_kind::default_value; };
  if (unset(e.model))
    e.model = {model.model_json.parent_path(),
               {origin_kind::default_value, "", 0, "beside model.json"}};
  if (unset(e.tokenizer))
    e.tokenizer = {*e.model, {origin_kind::default_value, "", 0, "the model's directory"}};
  if (unset(e.served_model_name))
    e.served_model_name = {{model.name}, {origin_kind::default_value, "", 0, "the model's name"}};
  if (unset(e.cpu_threads))
    e.cpu_threads = cpu_threads;
}

/// Leaves to the backend what is its own.
void take_own_keys(object_reader& r, const std::vector<std::string>& own_keys,
                   model_config& model) {
  std::string text;
  for (const auto& key : own_keys)
    if (const auto* value = r.find(key))
      text += (text.empty() ? "" : ",") + json_quoted(key) + ":" + to_json_text(*value);
  model.own_keys = "{" + text + "}";
}

} // namespace

model_config read_model(const repository_entry& entry, std::uint64_t version,
                        const model_context& context, const std::vector<std::string>& own_keys,
                        diagnostic_sink& sink) {
  model_config model;
  model.name = entry.name;
  model.version = version;
  model.model_json = entry.version_directory(version) / "model.json";
  const auto file = read_json(model.model_json, origin_kind::user_file, sink);
  auto merged = merge_sections(file ? *file : empty_object(model.model_json.string()),
                               context.section, model, sink);
  const auto path = join_path("models", model.name);
  object_reader r{merged, path, sink};
  read_engine(r, context, model.engine);
  r.read("generation_config", model.generation_config, as_string);
  const auto* overrides = r.find("override_generation_config");
  check_kv_dtype(r, model.engine);
  take_own_keys(r, own_keys, model);
  refuse_by_tables(r, model, sink);
  complete(model, context.cluster.cpu_threads);
  // Without a readable model.json nobody has said where the model is.
  if (merged.kind == json_kind::object && file) {
    const auto config = read_hf_config(model, sink);
    if (config) {
      check_architecture(*config, context.options.capabilities, sink);
      complete_length(*config, model, sink);
    }
    read_generation(overrides, config ? &*config : nullptr, model, sink);
  }
  check_arguments(model, context.options.capabilities, sink);
  return model;
}

} // namespace troupe::config
