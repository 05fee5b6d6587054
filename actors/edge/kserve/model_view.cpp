#include "actors/edge/kserve/model_view.hpp"

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace troupe::actors::kserve {

namespace {

using json = nlohmann::ordered_json;

using config::tensor_config;
using config::triton_model;

/// The shape that requests must have; -1 takes any size.
std::vector<std::int64_t> wanted_shape(const triton_model& model, const tensor_config& tensor) {
  auto dims = *tensor.dims;
  if (*model.max_batch_size > 0)
    dims.insert(dims.begin(), -1);
  return dims;
}

json metadata_of(const triton_model& model, const std::vector<tensor_config>& tensors) {
  auto all = json::array();
  for (const auto& t : tensors)
    all.push_back(
        {{"name", t.name}, {"datatype", wire_name(*t.type)}, {"shape", wanted_shape(model, t)}});
  return all;
}

/// How Triton's index calls a state of ours.
std::string index_state(const std::string& state) {
  if (state == "ready")
    return "READY";
  if (state == "unloading")
    return "UNLOADING";
  return state == "loading" || state == "restarting" ? "LOADING" : "UNAVAILABLE";
}

const model_entry* find_entry(const front_view& view, std::string_view name) {
  for (const auto& m : view.models)
    if (m.chosen && m.name == name)
      return &m;
  return find_model(view, name);
}

std::vector<std::string> all_versions(const front_view& view, std::string_view name) {
  std::vector<std::string> all;
  for (const auto& m : view.models)
    if (m.name == name)
      all.push_back(std::to_string(m.version));
  return all;
}

template <class Named>
std::string quoted_names(const std::vector<Named>& all) {
  std::string text;
  for (const auto& one : all)
    text += (text.empty() ? "'" : ",'") + one.name + "'";
  return text;
}

bool fits(const triton_model& model, const tensor_config& tensor,
          const std::vector<std::int64_t>& given) {
  const auto wanted = wanted_shape(model, tensor);
  if (given.size() != wanted.size())
    return false;
  return std::equal(wanted.begin(), wanted.end(), given.begin(),
                    [](std::int64_t w, std::int64_t g) { return w == -1 || w == g; });
}

/// The batch dimension of one input; `first` is that of the first.
outcome<void> check_batch(const tensor& t, const tensor& first, const model_view& model) {
  const std::int64_t most = *model.declared->max_batch_size;
  if (t.shape.empty())
    return refuse(fmt::format("input '{}' has no shape but model requires batch dimension for '{}'",
                              t.name, model.name));
  if (t.shape.front() != first.shape.front())
    return refuse(fmt::format("input '{}' batch size does not match other inputs for '{}'", t.name,
                              model.name));
  if (t.shape.front() < 1)
    return refuse(fmt::format("inference request batch-size must be >= 1 for '{}'", model.name));
  if (t.shape.front() > most)
    return refuse(fmt::format("inference request batch-size must be <= {} for '{}'; this one has "
                              "{}",
                              most, model.name, t.shape.front()));
  return {};
}

outcome<void> check_input(const tensor& t, const tensor& first, const model_view& model) {
  const auto& declared = *model.declared;
  const auto* wanted = declared.find_input(t.name);
  if (wanted == nullptr)
    return refuse(fmt::format("unexpected inference input '{}' for model '{}'; it takes {}",
                              t.name.substr(0, 128), model.name, quoted_names(declared.inputs)));
  if (to_string(t.type) != wire_name(*wanted->type))
    return refuse(fmt::format("inference input '{}' data-type is '{}', but model '{}' expects '{}'",
                              t.name, to_string(t.type), model.name, wire_name(*wanted->type)));
  if (*declared.max_batch_size > 0)
    if (auto good = check_batch(t, first, model); !good)
      return good;
  if (!fits(declared, *wanted, t.shape))
    return refuse(fmt::format("unexpected shape for input '{}' for model '{}'. Expected {}, got "
                              "{}. ",
                              t.name, model.name, shape_text(wanted_shape(declared, *wanted)),
                              shape_text(t.shape)));
  return check_data(t);
}

outcome<void> check_count(const infer_request& request, const model_view& model) {
  const auto& all = model.declared->inputs;
  std::vector<tensor_config> missing;
  for (const auto& wanted : all)
    if (!*wanted.optional && std::none_of(request.inputs.begin(), request.inputs.end(),
                                          [&](const tensor& t) { return t.name == wanted.name; }))
      missing.push_back(wanted);
  if (missing.empty())
    return {};
  const auto required =
      std::count_if(all.begin(), all.end(), [](const tensor_config& t) { return !*t.optional; });
  const auto expected =
      std::cmp_equal(required, all.size())
          ? fmt::format("{} inputs", required)
          : fmt::format("number of inputs between {} and {}", required, all.size());
  return refuse(fmt::format("expected {} but got {} inputs for model '{}'. Got input(s) [{}], but "
                            "missing required input(s) [{}]. Please provide all required input(s).",
                            expected, request.inputs.size(), model.name,
                            quoted_names(request.inputs), quoted_names(missing)));
}

outcome<void> check_all(const infer_request& request, const model_view& model) {
  for (std::size_t i = 0; i < request.inputs.size(); ++i) {
    const auto& name = request.inputs[i].name;
    for (std::size_t j = 0; j < i; ++j)
      if (request.inputs[j].name == name)
        return refuse(fmt::format("input '{}' already exists in request", name.substr(0, 128)));
    if (auto good = check_input(request.inputs[i], request.inputs.front(), model); !good)
      return good;
  }
  for (const auto& out : request.outputs)
    if (model.declared->find_output(out.name) == nullptr)
      return refuse(fmt::format("unexpected inference output '{}' for model '{}'; it has {}",
                                out.name.substr(0, 128), model.name,
                                quoted_names(model.declared->outputs)));
  return check_count(request, model);
}

} // namespace

std::string id_prefix(const infer_request& request) {
  return fmt::format("[request id: {}] ", request.id.empty() ? "<id_unknown>" : request.id);
}

datatype type_of(const tensor_config& tensor) {
  return datatype_of(wire_name(*tensor.type)).value_or(datatype::bytes);
}

model_view view_of(const model_entry& model) {
  static const auto nothing = std::make_shared<const triton_model>();
  model_view made{.name = model.name,
                  .version = std::to_string(model.version),
                  .declared = model.triton ? model.triton : nothing,
                  .state = index_state(model.state),
                  .reason = model.note};
  if (model.state == "ready") {
    made.backend = model.backend;
    made.door = model.door;
    made.lease = model.lease;
  }
  return made;
}

outcome<model_view> find_version(const front_view& view, std::string_view name,
                                 std::string_view version) {
  const auto* entry = find_entry(view, name);
  if (entry == nullptr)
    return refuse(failure_code::not_found,
                  fmt::format("Request for unknown model: '{}' is not found", name.substr(0, 128)));
  if (version.empty())
    return view_of(*entry);
  for (const auto& m : view.models)
    if (m.name == entry->name && std::to_string(m.version) == version)
      return view_of(m);
  const auto served = all_versions(view, entry->name);
  return refuse(failure_code::not_found,
                fmt::format("Request for unknown model: '{}' version {} is not found; version{} {} "
                            "{} served",
                            entry->name, version.substr(0, 32), served.size() > 1 ? "s" : "",
                            fmt::join(served, ", "), served.size() > 1 ? "are" : "is"));
}

std::vector<std::string> versions_of(const front_view& view, std::string_view name) {
  const auto* entry = find_entry(view, name);
  if (entry == nullptr)
    return {};
  std::vector<std::string> ready;
  for (const auto& m : view.models)
    if (m.name == entry->name && m.state == "ready")
      ready.push_back(std::to_string(m.version));
  return ready.empty() ? all_versions(view, entry->name) : ready;
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

std::string metadata_json(const model_view& model, const std::vector<std::string>& versions) {
  const auto& declared = *model.declared;
  return json{{"name", model.name},
              {"versions", versions},
              {"platform", declared.platform->empty() ? *declared.backend : *declared.platform},
              {"inputs", metadata_of(declared, declared.inputs)},
              {"outputs", metadata_of(declared, declared.outputs)}}
      .dump();
}

outcome<void> check_request(const infer_request& request, const model_view& model) {
  auto good = check_all(request, model);
  if (!good)
    good.error().text = id_prefix(request) + good.error().text;
  return good;
}

} // namespace troupe::actors::kserve
