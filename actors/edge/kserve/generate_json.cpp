#include "actors/edge/kserve/generate_json.hpp"

#include "actors/edge/json_body.hpp"
#include "actors/edge/kserve/json_values.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>
#include <utility>

namespace troupe::actors::kserve {

namespace {

using nlohmann::json;
using ordered = nlohmann::ordered_json;

/// A member that stands twice in the object, which the parser would not say.
std::string doubled_key(std::string_view body) {
  std::set<std::string> seen;
  std::string doubled;
  const auto watch = [&](int depth, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::key && depth == 1 &&
        !seen.insert(value.get<std::string>()).second)
      doubled = value.get<std::string>();
    return true;
  };
  const auto parsed = json::parse(body.begin(), body.end(), watch, false);
  return parsed.is_discarded() ? std::string{} : doubled;
}

/// The declared shape with its free dimensions set: the innermost takes what is left, the others 1.
outcome<std::vector<std::int64_t>> shape_for(const config::tensor_config& spec,
                                             const config::triton_model& model, std::size_t count) {
  auto dims = *spec.dims;
  if (*model.max_batch_size > 0)
    dims.insert(dims.begin(), 1);
  std::int64_t* free = nullptr;
  std::uint64_t fixed = 1;
  for (auto& d : dims) {
    if (d == -1) {
      d = 1;
      free = &d;
    }
    fixed *= static_cast<std::uint64_t>(d);
  }
  if (free != nullptr && fixed != 0 && count % fixed == 0)
    *free = static_cast<std::int64_t>(count / fixed);
  else if (count != fixed)
    return refuse(fmt::format("The schema can not convert input '{}' to tensor with proper shape: "
                              "{} takes {} elements, got {}",
                              spec.name, shape_text(*spec.dims), fixed, count));
  return dims;
}

outcome<void> add_tensor(const config::tensor_config& spec, const json& value,
                         const config::triton_model& model, infer_request& out) {
  auto data = data_of(value, type_of(spec), spec.name);
  if (!data)
    return tl::unexpected<failure>(std::move(data.error()));
  auto shape = shape_for(spec, model, count_of(value));
  if (!shape)
    return tl::unexpected<failure>(std::move(shape.error()));
  tensor made{.name = spec.name, .type = type_of(spec), .shape = std::move(*shape), .data = {}};
  made.data = std::move(*data);
  out.inputs.push_back(std::move(made));
  return {};
}

outcome<void> take_id(const json& value, infer_request& out) {
  if (!value.is_string())
    return refuse("'id' must be a string");
  if (!out.id.empty())
    return refuse("parameter 'id' already exists in request");
  out.id = value.get<std::string>();
  return {};
}

outcome<void> add_member(const std::string& name, const json& value,
                         const config::triton_model& model, infer_request& out) {
  if (value.is_null())
    return {};
  if (const auto* spec = model.find_input(name))
    return add_tensor(*spec, value, model, out);
  if (name == "id")
    return take_id(value, out);
  auto one = parameter_of(value, name);
  if (!one)
    return tl::unexpected<failure>(std::move(one.error()));
  if (!out.parameters.emplace(name, std::move(*one)).second)
    return refuse(fmt::format("parameter '{}' already exists in request", name.substr(0, 64)));
  return {};
}

} // namespace

outcome<infer_request> parse_generate(std::string_view body, const config::triton_model& model) {
  const auto parsed = parse_body(body);
  if (!parsed)
    return refuse(parsed.error().message);
  if (const auto twice = doubled_key(body); !twice.empty())
    return refuse(fmt::format("input '{}' already exists in request", twice.substr(0, 64)));
  infer_request out;
  for (const auto& [name, value] : parsed->items()) {
    if (name != "parameters" || !value.is_object()) {
      if (auto good = add_member(name, value, model, out); !good)
        return tl::unexpected<failure>(std::move(good.error()));
      continue;
    }
    for (const auto& [inner, nested] : value.items())
      if (auto good = add_member(inner, nested, model, out); !good)
        return tl::unexpected<failure>(std::move(good.error()));
  }
  return out;
}

std::string generate_json(const infer_response& response) {
  ordered body;
  if (!response.id.empty())
    body["id"] = response.id;
  body["model_name"] = response.model;
  body["model_version"] = response.version;
  for (const auto& [name, value] : response.parameters)
    body[name] = std::visit([](const auto& v) { return ordered(v); }, value);
  for (const auto& t : response.outputs) {
    auto list = list_of(t);
    body[t.name] = list.size() == 1 ? ordered(list[0]) : list;
  }
  return body.dump(-1, ' ', false, ordered::error_handler_t::replace);
}

} // namespace troupe::actors::kserve
