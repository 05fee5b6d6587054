#include "engine/weights/model_config.hpp"

#include "engine/weights/json_file.hpp"
#include "engine/weights/mapped_file.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <optional>

namespace troupe::engine {

namespace {

using json = nlohmann::json;

/// Reads fields of one object and keeps the first error.
class field_reader {
public:
  field_reader(const json& object, std::string name) : object_{&object}, name_{std::move(name)} {}

  /// The value of `key`, or nullptr when it is absent or null.
  const json* find(std::string_view key) const {
    const auto at = object_->find(key);
    return at == object_->end() || at->is_null() ? nullptr : &*at;
  }

  bool is_null(std::string_view key) const {
    const auto at = object_->find(key);
    return at != object_->end() && at->is_null();
  }

  std::int64_t whole(std::string_view key, std::optional<std::int64_t> otherwise,
                     std::int64_t largest) {
    const json* const found = find(key);
    if (found == nullptr && otherwise)
      return *otherwise;
    if (found != nullptr && found->is_number_integer() &&
        (!found->is_number_unsigned() ||
         found->get<std::uint64_t>() <= static_cast<std::uint64_t>(largest)) &&
        found->get<std::int64_t>() >= 1 && found->get<std::int64_t>() <= largest)
      return found->get<std::int64_t>();
    wrong(key, found, fmt::format("a whole number from 1 to {}", largest));
    return 1;
  }

  double number(std::string_view key, std::optional<double> otherwise) {
    const json* const found = find(key);
    if (found == nullptr && otherwise)
      return *otherwise;
    const double read = found != nullptr && found->is_number() ? found->get<double>() : 0.0;
    if (std::isfinite(read) && read > 0)
      return read;
    wrong(key, found, "a number above 0");
    return 1.0;
  }

  bool boolean(std::string_view key, bool otherwise) {
    const json* const found = find(key);
    if (found == nullptr)
      return otherwise;
    if (found->is_boolean())
      return found->get<bool>();
    wrong(key, found, "true or false");
    return otherwise;
  }

  std::string text(std::string_view key, std::string_view otherwise) {
    const json* const found = find(key);
    if (found == nullptr)
      return std::string{otherwise};
    if (found->is_string())
      return found->get<std::string>();
    wrong(key, found, "text");
    return std::string{otherwise};
  }

  void wrong(std::string_view key, const json* found, std::string_view expected) {
    const std::string shown =
        found == nullptr
            ? "is missing"
            : fmt::format("is {}",
                          found->dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 80));
    refuse(errc::invalid_argument, fmt::format("'{}' {}; it must be {}", key, shown, expected));
  }

  void refuse(errc code, std::string_view what) {
    if (!error_)
      error_ = error{code, fmt::format("{}: {}", name_, what)};
  }

  const std::optional<error>& failure() const { return error_; }
  const std::string& name() const { return name_; }

private:
  const json* object_;
  std::string name_;
  std::optional<error> error_;
};

/// Sizes that no real model reaches; they keep every product of two far from overflow.
constexpr std::int64_t max_width = 1 << 20;
constexpr std::int64_t max_layers = 4096;
constexpr std::int64_t max_vocabulary = 1 << 24;
constexpr std::int64_t max_positions = 1 << 26;

void refuse_what_changes_the_math(field_reader& fields, const architecture_defaults& rules) {
  const auto refuse = [&](std::string_view key, std::string_view why) {
    fields.refuse(errc::unsupported, fmt::format("'{}': {}", key, why));
  };
  if (fields.find("quantization_config") != nullptr)
    refuse("quantization_config", "quantised checkpoints are not served; take the original one");
  for (const std::string_view key : {"attention_bias", "mlp_bias", "use_sliding_window"})
    if (fields.boolean(key, false))
      refuse(key, "true is not served");
  if (const std::string act = fields.text("hidden_act", "silu"); act != "silu" && act != "swish")
    refuse("hidden_act", fmt::format("'{}' is not served, only 'silu'", act));
  if (fields.number("partial_rotary_factor", 1.0) != 1.0)
    refuse("partial_rotary_factor", "only 1.0 is served");
  // For some architectures silence leaves a window on, and an explicit null switches it off.
  if (rules.sliding_window && !fields.is_null("sliding_window"))
    refuse("sliding_window", "sliding-window attention is not served; only an explicit null is");
  const json* const types = fields.find("layer_types");
  if (types == nullptr)
    return;
  for (const json& type : types->is_array() ? *types : json::array({*types}))
    if (!type.is_string() || type.get<std::string>() != "full_attention")
      refuse("layer_types", "only 'full_attention' is served");
}

/// Reads what `fields` say of rope: the whole of rope_parameters, or of rope_scaling.
void read_rope(field_reader& fields, rope_config& rope) {
  const std::string kind = fields.text("rope_type", fields.text("type", "default"));
  if (fields.number("partial_rotary_factor", 1.0) != 1.0)
    fields.refuse(errc::unsupported, "'partial_rotary_factor': only 1.0 is served");
  rope.theta = fields.number("rope_theta", rope.theta);
  if (kind == "default")
    return;
  if (kind != "linear" && kind != "llama3") {
    fields.refuse(errc::unsupported,
                  fmt::format("rope_type '{}' is not served; 'default', 'linear' and 'llama3' are",
                              kind.substr(0, 40)));
    return;
  }
  rope.factor = fields.number("factor", std::nullopt);
  rope.scaling = kind == "linear" ? rope_scaling::linear : rope_scaling::llama3;
  if (rope.scaling == rope_scaling::linear)
    return;
  rope.low_freq_factor = fields.number("low_freq_factor", std::nullopt);
  rope.high_freq_factor = fields.number("high_freq_factor", std::nullopt);
  rope.original_max_position_embeddings =
      fields.number("original_max_position_embeddings", std::nullopt);
  if (rope.high_freq_factor <= rope.low_freq_factor)
    fields.refuse(errc::invalid_argument, "'high_freq_factor' must be above 'low_freq_factor'");
}

void read_all_rope(field_reader& fields, rope_config& rope) {
  rope.theta = fields.number("rope_theta", rope.theta);
  for (const std::string_view key : {"rope_scaling", "rope_parameters"}) {
    const json* const nested = fields.find(key);
    if (nested == nullptr)
      continue;
    if (!nested->is_object()) {
      fields.wrong(key, nested, "an object");
      return;
    }
    field_reader inner{*nested, fmt::format("{}: in '{}'", fields.name(), key)};
    read_rope(inner, rope);
    if (inner.failure())
      fields.refuse(inner.failure()->code,
                    std::string_view{inner.failure()->note}.substr(fields.name().size() + 2));
  }
}

void read_dtype(field_reader& fields, kernels::dtype& type) {
  std::string name = fields.text("dtype", fields.text("torch_dtype", "float32"));
  if (name.starts_with("torch."))
    name.erase(0, 6);
  if (name == "float32")
    type = kernels::dtype::f32;
  else if (name == "bfloat16")
    type = kernels::dtype::bf16;
  else if (name == "float16")
    type = kernels::dtype::f16;
  else
    fields.refuse(errc::unsupported, fmt::format("dtype '{}' is not served; float32, bfloat16 and "
                                                 "float16 are",
                                                 name.substr(0, 40)));
}

void read_eos(field_reader& fields, model_config& config) {
  const json* const found = fields.find("eos_token_id");
  if (found == nullptr)
    return;
  for (const json& token : found->is_array() ? *found : json::array({*found})) {
    const bool good = token.is_number_integer() && token.get<std::int64_t>() >= 0 &&
                      token.get<std::int64_t>() < config.vocab_size;
    if (!good)
      return fields.wrong("eos_token_id", found, "a token of the vocabulary or a list of them");
    config.eos_token_ids.push_back(token.get<token_id>());
  }
}

result<const architecture_defaults*>
find_architecture(field_reader& fields, std::span<const architecture_defaults> known) {
  const json* const list = fields.find("architectures");
  std::string name;
  if (list != nullptr && list->is_array() && list->size() == 1 && list->front().is_string())
    name = list->front().get<std::string>();
  else {
    fields.wrong("architectures", list, "a list of one name");
    return fail(*fields.failure());
  }
  std::vector<std::string_view> names;
  for (const architecture_defaults& one : known) {
    if (one.name == name)
      return &one;
    names.push_back(one.name);
  }
  return fail(errc::unsupported,
              fmt::format("{}: architecture '{}' is not served; these are: {}", fields.name(),
                          name.substr(0, 80), fmt::join(names, ", ")));
}

} // namespace

result<model_config> parse_model_config(std::string_view text, std::string_view name,
                                        std::span<const architecture_defaults> known) {
  const auto parsed = parse_json_object(text, name, {.bytes = 1U << 20U, .depth = 32});
  if (!parsed)
    return fail(parsed.error());
  field_reader fields{*parsed, std::string{name}};
  const auto rules = find_architecture(fields, known);
  if (!rules)
    return fail(rules.error());

  model_config config;
  config.architecture = (*rules)->name;
  config.hidden_size = fields.whole("hidden_size", std::nullopt, max_width);
  config.intermediate_size = fields.whole("intermediate_size", std::nullopt, max_width);
  config.layers = fields.whole("num_hidden_layers", std::nullopt, max_layers);
  config.heads = fields.whole("num_attention_heads", std::nullopt, max_width);
  config.kv_heads = fields.whole("num_key_value_heads", config.heads, max_width);
  const std::int64_t dim =
      (*rules)->head_dim != 0 ? (*rules)->head_dim : config.hidden_size / config.heads;
  config.head_dim = fields.whole("head_dim", dim, 512);
  config.vocab_size = fields.whole("vocab_size", std::nullopt, max_vocabulary);
  config.max_position_embeddings =
      fields.whole("max_position_embeddings", (*rules)->max_position_embeddings, max_positions);
  config.rms_norm_eps = fields.number("rms_norm_eps", 1e-6);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);
  if (config.heads % config.kv_heads != 0)
    fields.refuse(errc::invalid_argument,
                  fmt::format("'num_attention_heads' {} is no multiple of 'num_key_value_heads' {}",
                              config.heads, config.kv_heads));
  if (config.head_dim < 2 || config.head_dim % 2 != 0)
    fields.refuse(errc::invalid_argument,
                  fmt::format("the head dimension {} is not even", config.head_dim));
  read_all_rope(fields, config.rope);
  read_dtype(fields, config.dtype);
  read_eos(fields, config);
  refuse_what_changes_the_math(fields, **rules);
  if (fields.failure())
    return fail(*fields.failure());
  return config;
}

result<model_config> read_model_config(const std::filesystem::path& model_dir,
                                       std::span<const architecture_defaults> known) {
  const auto path = model_dir / "config.json";
  const auto mapped = mapped_file::open(path);
  if (!mapped)
    return fail(mapped.error());
  const auto text = mapped->text(json_limits{}.bytes + 1);
  if (!text)
    return fail(text.error());
  return parse_model_config(*text, path.string(), known);
}

std::uint64_t model_config::layer_elements() const noexcept {
  // No product of sane numbers overflows a double.
  const double attention =
      static_cast<double>(hidden_size * head_dim) * static_cast<double>(2 * heads + 2 * kv_heads);
  const double mlp = 3.0 * static_cast<double>(hidden_size * intermediate_size);
  return static_cast<std::uint64_t>(static_cast<double>(layers) * (attention + mlp));
}

void model_config::add_to(fingerprint& print) const noexcept {
  print.add(std::string_view{architecture});
  for (const std::int64_t size : {hidden_size, intermediate_size, layers, heads, kv_heads, head_dim,
                                  vocab_size, std::int64_t{tie_word_embeddings}})
    print.add(static_cast<std::uint64_t>(size));
  for (const double number :
       {rms_norm_eps, rope.theta, rope.factor, rope.low_freq_factor, rope.high_freq_factor,
        rope.original_max_position_embeddings, static_cast<double>(rope.scaling)})
    print.add(number);
}

} // namespace troupe::engine
