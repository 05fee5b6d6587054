#include "actors/edge/kserve/infer_json.hpp"

#include "actors/edge/json_body.hpp"
#include "actors/edge/kserve/json_values.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <utility>

namespace troupe::actors::kserve {

namespace {

using nlohmann::json;
using ordered = nlohmann::ordered_json;

constexpr std::size_t most_tensors = 1024;
constexpr std::size_t most_dims = 64;

/// The bytes behind the JSON, handed out from the front.
struct binary_part {
  std::string_view left;
};

outcome<std::uint64_t> size_of(const json& parameters, const char* key, std::string_view name) {
  const auto found = parameters.find(key);
  if (found == parameters.end())
    return 0;
  if (!found->is_number_unsigned())
    return refuse(fmt::format("parameter '{}' of '{}' must be a whole number, not {}", key, name,
                              found->dump().substr(0, 60)));
  return found->get<std::uint64_t>();
}

outcome<std::optional<memory_place>> place_of(const json& parameters, std::string_view name) {
  const auto region = parameters.find("shared_memory_region");
  if (region == parameters.end())
    return std::optional<memory_place>{};
  if (!region->is_string())
    return refuse(fmt::format("'shared_memory_region' of '{}' must be a string", name));
  const auto offset = size_of(parameters, "shared_memory_offset", name);
  const auto bytes = size_of(parameters, "shared_memory_byte_size", name);
  if (!offset || !bytes)
    return tl::unexpected<failure>(offset ? bytes.error() : offset.error());
  return std::optional{memory_place{region->get<std::string>(), *offset, *bytes}};
}

/// A member that is an object, or an empty one.
outcome<json> object_at(const json& in, const char* key, std::string_view where) {
  const auto found = in.find(key);
  if (found == in.end() || found->is_null())
    return json::object();
  if (!found->is_object())
    return refuse(fmt::format("'{}' of {} must be a JSON object", key, where));
  return *found;
}

outcome<std::string> name_of(const json& item, const char* list, std::size_t index) {
  if (!item.is_object())
    return refuse(fmt::format("{}[{}] must be a JSON object", list, index));
  const auto name = item.find("name");
  if (name == item.end() || !name->is_string())
    return refuse(fmt::format("{}[{}] has no 'name', or one that is no string", list, index));
  return name->get<std::string>();
}

outcome<void> read_head(const json& item, tensor& t) {
  const auto type = item.find("datatype");
  if (type == item.end() || !type->is_string())
    return refuse(fmt::format("input '{}' has no 'datatype', or one that is no string", t.name));
  const auto known = datatype_of(type->get_ref<const std::string&>());
  if (!known)
    return refuse(fmt::format("input '{}' has the unknown datatype '{}'", t.name,
                              type->get_ref<const std::string&>().substr(0, 32)));
  t.type = *known;
  const auto shape = item.find("shape");
  if (shape == item.end() || !shape->is_array() || shape->size() > most_dims)
    return refuse(fmt::format("input '{}' has no 'shape', or one that is no list of at most {} "
                              "whole numbers",
                              t.name, most_dims));
  for (const auto& dim : *shape) {
    if (!dim.is_number_integer() ||
        (dim.is_number_unsigned() && dim.get<std::uint64_t>() > (1ULL << 62U)))
      return refuse(fmt::format("the shape of input '{}' holds {}, which is no whole number",
                                t.name, dim.dump().substr(0, 60)));
    t.shape.push_back(dim.get<std::int64_t>());
  }
  return {};
}

outcome<std::string> read_data(const json& item, const tensor& t, binary_part& binary,
                               const shared_memory& memory) {
  const auto parameters = object_at(item, "parameters", fmt::format("input '{}'", t.name));
  if (!parameters)
    return tl::unexpected<failure>(parameters.error());
  const auto place = place_of(*parameters, t.name);
  if (!place)
    return tl::unexpected<failure>(place.error());
  const bool has_data = item.contains("data");
  const bool has_binary = parameters->contains("binary_data_size");
  if (int{has_data} + int{has_binary} + int{place->has_value()} != 1)
    return refuse(fmt::format("input '{}' must have its data in exactly one of 'data', "
                              "'binary_data_size' and 'shared_memory_region'",
                              t.name));
  if (*place)
    return memory.read(**place);
  if (has_data)
    return data_of(item["data"], t.type, t.name);
  const auto bytes = size_of(*parameters, "binary_data_size", t.name);
  if (!bytes)
    return tl::unexpected<failure>(bytes.error());
  if (*bytes > binary.left.size())
    return refuse(
        fmt::format("input '{}' says that it has {} bytes of binary data, but only {} are "
                    "left behind the JSON of the request",
                    t.name, *bytes, binary.left.size()));
  std::string data{binary.left.substr(0, *bytes)};
  binary.left.remove_prefix(*bytes);
  return data;
}

outcome<void> read_inputs(const json& body, binary_part& binary, const shared_memory& memory,
                          infer_request& out) {
  const auto list = body.find("inputs");
  if (list == body.end() || !list->is_array() || list->size() > most_tensors)
    return refuse(fmt::format("'inputs' must be a list of at most {} tensors", most_tensors));
  for (std::size_t i = 0; i < list->size(); ++i) {
    auto name = name_of((*list)[i], "inputs", i);
    if (!name)
      return tl::unexpected<failure>(std::move(name.error()));
    tensor t{.name = std::move(*name), .shape = {}, .data = {}};
    if (auto good = read_head((*list)[i], t); !good)
      return good;
    auto data = read_data((*list)[i], t, binary, memory);
    if (!data)
      return tl::unexpected<failure>(std::move(data.error()));
    t.data = std::move(*data);
    out.inputs.push_back(std::move(t));
  }
  if (!binary.left.empty())
    return refuse(fmt::format("{} bytes behind the JSON of the request belong to no input",
                              binary.left.size()));
  return {};
}

outcome<wanted_output> read_output(const json& item, std::size_t index, bool binary) {
  auto name = name_of(item, "outputs", index);
  if (!name)
    return tl::unexpected<failure>(std::move(name.error()));
  wanted_output out{.name = std::move(*name), .binary = binary, .memory = {}};
  const auto parameters = object_at(item, "parameters", fmt::format("output '{}'", out.name));
  if (!parameters)
    return tl::unexpected<failure>(parameters.error());
  if (const auto own = parameters->find("binary_data"); own != parameters->end()) {
    if (!own->is_boolean())
      return refuse(fmt::format("'binary_data' of output '{}' must be true or false", out.name));
    out.binary = own->get<bool>();
  }
  if (const auto classes = parameters->find("classification");
      classes != parameters->end() && *classes != 0)
    return refuse(
        failure_code::unsupported,
        fmt::format("output '{}' has no classes, so 'classification' cannot be served", out.name));
  auto place = place_of(*parameters, out.name);
  if (!place)
    return tl::unexpected<failure>(std::move(place.error()));
  out.memory = std::move(*place);
  return out;
}

outcome<void> read_outputs(const json& body, infer_body& out) {
  const auto list = body.find("outputs");
  if (list == body.end() || list->is_null())
    return {};
  if (!list->is_array() || list->size() > most_tensors)
    return refuse(fmt::format("'outputs' must be a list of at most {} outputs", most_tensors));
  for (std::size_t i = 0; i < list->size(); ++i) {
    auto one = read_output((*list)[i], i, out.binary_output);
    if (!one)
      return tl::unexpected<failure>(std::move(one.error()));
    out.request.outputs.push_back(std::move(*one));
  }
  return {};
}

outcome<void> read_parameters(const json& body, infer_body& out) {
  const auto given = object_at(body, "parameters", "the request");
  if (!given)
    return tl::unexpected<failure>(given.error());
  for (const auto& [name, value] : given->items()) {
    if (value.is_null())
      continue;
    auto one = parameter_of(value, name);
    if (!one)
      return tl::unexpected<failure>(std::move(one.error()));
    if (name != "binary_data_output") {
      out.request.parameters[name] = std::move(*one);
      continue;
    }
    if (!value.is_boolean())
      return refuse("parameter 'binary_data_output' must be true or false");
    out.binary_output = value.get<bool>();
  }
  return {};
}

ordered parameter_json(const parameters& all) {
  auto out = ordered::object();
  for (const auto& [name, value] : all)
    out[name] = std::visit([](const auto& v) { return ordered(v); }, value);
  return out;
}

/// Adds one output to the JSON, and to the binary part if it goes there.
ordered output_json(const tensor& t, bool binary, std::string& behind) {
  ordered out = {{"name", t.name}, {"datatype", to_string(t.type)}, {"shape", t.shape}};
  if (t.memory) {
    out["parameters"] = {{"shared_memory_region", t.memory->region},
                         {"shared_memory_offset", t.memory->offset},
                         {"shared_memory_byte_size", t.memory->bytes}};
  } else if (binary || element_size(t.type) == 2) {
    out["parameters"] = {{"binary_data_size", t.data.size()}};
    behind += t.data;
  } else {
    out["data"] = list_of(t);
  }
  return out;
}

} // namespace

outcome<std::optional<std::size_t>> json_length(std::string_view header, std::size_t body_bytes) {
  if (header.empty())
    return std::optional<std::size_t>{};
  std::size_t n = 0;
  const auto* end = header.data() + header.size();
  const auto r = std::from_chars(header.data(), end, n);
  if (r.ec != std::errc{} || r.ptr != end || n > body_bytes)
    return refuse(fmt::format("Inference-Header-Content-Length is '{}', and must be a whole number "
                              "of at most the {} bytes of the body",
                              header.substr(0, 32), body_bytes));
  return std::optional{n};
}

outcome<infer_body> parse_infer(std::string_view body, std::optional<std::size_t> json_bytes,
                                const shared_memory& memory) {
  const auto split = json_bytes.value_or(body.size());
  const auto parsed = parse_body(body.substr(0, split));
  if (!parsed)
    return refuse(parsed.error().message);
  infer_body out;
  if (const auto id = parsed->find("id"); id != parsed->end() && !id->is_null()) {
    if (!id->is_string())
      return refuse("'id' must be a string");
    out.request.id = id->get<std::string>();
  }
  binary_part binary{body.substr(split)};
  if (auto good = read_parameters(*parsed, out); !good)
    return tl::unexpected<failure>(std::move(good.error()));
  if (auto good = read_inputs(*parsed, binary, memory, out.request); !good)
    return tl::unexpected<failure>(std::move(good.error()));
  if (auto good = read_outputs(*parsed, out); !good)
    return tl::unexpected<failure>(std::move(good.error()));
  return out;
}

reply infer_reply(const infer_response& response, const infer_body& asked) {
  ordered body;
  if (!response.id.empty())
    body["id"] = response.id;
  body["model_name"] = response.model;
  body["model_version"] = response.version;
  if (!response.parameters.empty())
    body["parameters"] = parameter_json(response.parameters);
  body["outputs"] = ordered::array();
  std::string behind;
  for (const auto& t : response.outputs) {
    bool binary = asked.binary_output;
    for (const auto& wanted : asked.request.outputs)
      if (wanted.name == t.name)
        binary = wanted.binary;
    body["outputs"].push_back(output_json(t, binary, behind));
  }
  reply r;
  r.body = body.dump(-1, ' ', false, ordered::error_handler_t::replace);
  const bool any_binary =
      std::any_of(body["outputs"].begin(), body["outputs"].end(), [](const ordered& o) {
        return o.contains("parameters") && o["parameters"].contains("binary_data_size");
      });
  if (any_binary) {
    r.headers.emplace_back("Inference-Header-Content-Length", std::to_string(r.body.size()));
    r.type = "application/octet-stream";
    r.body += behind;
  }
  return r;
}

} // namespace troupe::actors::kserve
