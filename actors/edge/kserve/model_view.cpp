#include "actors/edge/kserve/model_view.hpp"

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace troupe::actors::kserve {

namespace {

using json = nlohmann::ordered_json;

json dims_json(const signature& shape, const tensor_spec& spec) {
  auto dims = json::array();
  if (shape.max_batch_size > 0)
    dims.push_back(-1);
  for (const auto d : spec.dims)
    dims.push_back(d);
  return dims;
}

json metadata_of(const signature& shape, const std::vector<tensor_spec>& specs) {
  auto all = json::array();
  for (const auto& s : specs)
    all.push_back(
        {{"name", s.name}, {"datatype", to_string(s.type)}, {"shape", dims_json(shape, s)}});
  return all;
}

json config_of(const tensor_spec& spec, bool input) {
  json out = {{"name", spec.name}, {"data_type", config_name(spec.type)}};
  if (input)
    out["format"] = "FORMAT_NONE";
  out["dims"] = spec.dims;
  if (input) {
    out["is_shape_tensor"] = false;
    out["allow_ragged_batch"] = false;
    out["optional"] = spec.optional;
  } else {
    out["label_filename"] = "";
    out["is_shape_tensor"] = false;
  }
  return out;
}

/// How Triton's index calls a state of ours.
std::string index_state(const std::string& state) {
  if (state == "ready")
    return "READY";
  return state == "loading" || state == "restarting" ? "LOADING" : "UNAVAILABLE";
}

const model_entry* find_entry(const front_view& view, std::string_view name) {
  for (const auto& m : view.models)
    if (m.name == name)
      return &m;
  return find_model(view, name);
}

const tensor_spec* find_spec(const std::vector<tensor_spec>& specs, std::string_view name) {
  const auto found = std::find_if(specs.begin(), specs.end(),
                                  [&](const tensor_spec& s) { return s.name == name; });
  return found == specs.end() ? nullptr : &*found;
}

template <class Named>
std::string quoted_names(const std::vector<Named>& all) {
  std::string text;
  for (const auto& one : all)
    text += (text.empty() ? "'" : ",'") + one.name + "'";
  return text;
}

bool fits(const signature& shape, const tensor_spec& spec, const std::vector<std::int64_t>& given) {
  const std::size_t batch = shape.max_batch_size > 0 ? 1 : 0;
  if (given.size() != spec.dims.size() + batch)
    return false;
  if (batch == 1 && (given[0] < 1 || given[0] > shape.max_batch_size))
    return false;
  for (std::size_t i = 0; i < spec.dims.size(); ++i)
    if (spec.dims[i] != -1 && spec.dims[i] != given[i + batch])
      return false;
  return true;
}

outcome<void> check_input(const tensor& t, const model_view& model) {
  const auto& shape = *model.shape;
  const auto* spec = find_spec(shape.inputs, t.name);
  if (spec == nullptr)
    return refuse(fmt::format("unexpected inference input '{}' for model '{}'; it takes {}",
                              t.name.substr(0, 128), model.name, quoted_names(shape.inputs)));
  if (t.type != spec->type)
    return refuse(fmt::format("inference input '{}' data-type is '{}', but model '{}' expects '{}'",
                              t.name, to_string(t.type), model.name, to_string(spec->type)));
  if (!fits(shape, *spec, t.shape))
    return refuse(fmt::format("unexpected shape for input '{}' for model '{}'. Expected {}, got "
                              "{}. ",
                              t.name, model.name,
                              shape_text(dims_json(shape, *spec).get<std::vector<std::int64_t>>()),
                              shape_text(t.shape)));
  return check_data(t);
}

outcome<void> check_count(const infer_request& request, const model_view& model) {
  std::vector<tensor_spec> missing;
  for (const auto& spec : model.shape->inputs)
    if (!spec.optional && std::none_of(request.inputs.begin(), request.inputs.end(),
                                       [&](const tensor& t) { return t.name == spec.name; }))
      missing.push_back(spec);
  if (missing.empty())
    return {};
  const auto& all = model.shape->inputs;
  const auto required =
      std::count_if(all.begin(), all.end(), [](const tensor_spec& s) { return !s.optional; });
  return refuse(fmt::format("expected number of inputs between {} and {} but got {} inputs for "
                            "model '{}'. Got input(s) [{}], but missing required input(s) [{}]. "
                            "Please provide all required input(s).",
                            required, all.size(), request.inputs.size(), model.name,
                            quoted_names(request.inputs), quoted_names(missing)));
}

outcome<void> check_all(const infer_request& request, const model_view& model) {
  for (std::size_t i = 0; i < request.inputs.size(); ++i) {
    const auto& name = request.inputs[i].name;
    for (std::size_t j = 0; j < i; ++j)
      if (request.inputs[j].name == name)
        return refuse(fmt::format("input '{}' already exists in request", name.substr(0, 128)));
    if (auto good = check_input(request.inputs[i], model); !good)
      return good;
  }
  for (const auto& out : request.outputs)
    if (find_spec(model.shape->outputs, out.name) == nullptr)
      return refuse(fmt::format("unexpected inference output '{}' for model '{}'; it has {}",
                                out.name.substr(0, 128), model.name,
                                quoted_names(model.shape->outputs)));
  return check_count(request, model);
}

} // namespace

std::string id_prefix(const infer_request& request) {
  return fmt::format("[request id: {}] ", request.id.empty() ? "<id_unknown>" : request.id);
}

std::shared_ptr<const signature> text_signature() {
  using enum datatype;
  static const auto made = std::make_shared<const signature>(
      signature{.platform = "",
                .backend = "vllm",
                .inputs = {{"text_input", bytes, {1}, false},
                           {"image", bytes, {-1}, true},
                           {"stream", boolean, {1}, true},
                           {"sampling_parameters", bytes, {1}, true},
                           {"exclude_input_in_output", boolean, {1}, true},
                           {"return_finish_reason", boolean, {1}, true},
                           {"return_cumulative_logprob", boolean, {1}, true},
                           {"return_logprobs", boolean, {1}, true},
                           {"return_num_input_tokens", boolean, {1}, true},
                           {"return_num_output_tokens", boolean, {1}, true},
                           {"embedding_request", bytes, {1}, true}},
                .outputs = {{"text_output", bytes, {-1}, false},
                            {"finish_reason", bytes, {-1}, false},
                            {"cumulative_logprob", fp32, {-1}, false},
                            {"logprobs", bytes, {-1}, false},
                            {"num_input_tokens", uint32, {1}, false},
                            {"num_output_tokens", uint32, {-1}, false}}});
  return made;
}

model_view view_of(const model_entry& model) {
  model_view made{.name = model.name,
                  .version = std::to_string(model.version),
                  .shape = text_signature(),
                  .state = index_state(model.state),
                  .reason = model.note};
  if (model.state == "ready")
    made.backend = model.backend;
  return made;
}

outcome<model_view> find_version(const front_view& view, std::string_view name,
                                 std::string_view version) {
  const auto* entry = find_entry(view, name);
  if (entry == nullptr)
    return refuse(failure_code::not_found,
                  fmt::format("Request for unknown model: '{}' is not found", name.substr(0, 128)));
  auto model = view_of(*entry);
  if (!version.empty() && version != model.version)
    return refuse(failure_code::not_found,
                  fmt::format("Request for unknown model: '{}' version {} is not found; version {} "
                              "is served",
                              model.name, version.substr(0, 32), model.version));
  return model;
}

outcome<model_view> find_ready(const front_view& view, std::string_view name,
                               std::string_view version) {
  if (view.draining)
    return refuse(failure_code::unavailable,
                  "the server is shutting down and takes no new requests; ask another one");
  auto model = find_version(view, name, version);
  if (model && !model->backend)
    return refuse(failure_code::unavailable,
                  fmt::format("Request for unknown model: '{}' version {} is not at ready state "
                              "({}{}{})",
                              model->name, model->version, model->state,
                              model->reason.empty() ? "" : ": ", model->reason));
  return model;
}

std::string metadata_json(const model_view& model) {
  const auto& shape = *model.shape;
  return json{{"name", model.name},
              {"versions", {model.version}},
              {"platform", shape.platform.empty() ? shape.backend : shape.platform},
              {"inputs", metadata_of(shape, shape.inputs)},
              {"outputs", metadata_of(shape, shape.outputs)}}
      .dump();
}

std::string config_json(const model_view& model) {
  const auto& shape = *model.shape;
  json out = {{"name", model.name},
              {"platform", shape.platform},
              {"backend", shape.backend},
              {"runtime", ""},
              {"version_policy", {{"latest", {{"num_versions", 1}}}}},
              {"max_batch_size", shape.max_batch_size},
              {"input", json::array()},
              {"output", json::array()},
              {"batch_input", json::array()},
              {"batch_output", json::array()},
              {"instance_group",
               {{{"name", model.name + "_0"},
                 {"kind", "KIND_MODEL"},
                 {"count", 1},
                 {"gpus", json::array()},
                 {"secondary_devices", json::array()},
                 {"profile", json::array()},
                 {"passive", false},
                 {"host_policy", ""}}}},
              {"default_model_filename", ""},
              {"cc_model_filenames", json::object()},
              {"metric_tags", json::object()},
              {"parameters", json::object()},
              {"model_warmup", json::array()},
              {"model_transaction_policy", {{"decoupled", shape.decoupled}}}};
  for (const auto& s : shape.inputs)
    out["input"].push_back(config_of(s, true));
  for (const auto& s : shape.outputs)
    out["output"].push_back(config_of(s, false));
  return out.dump();
}

outcome<void> check_request(const infer_request& request, const model_view& model) {
  auto good = check_all(request, model);
  if (!good)
    good.error().text = id_prefix(request) + good.error().text;
  return good;
}

} // namespace troupe::actors::kserve
