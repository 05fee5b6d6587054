#include "actors/edge/grpc/messages.hpp"

#include "actors/edge/grpc/contents.hpp"
#include "engine/text/utf8.hpp"

#include <fmt/core.h>

#include <limits>
#include <utility>

namespace troupe::actors::kserve {

namespace {

using inference::InferParameter;
using inference::ModelInferRequest;
using parameter_map = google::protobuf::Map<std::string, InferParameter>;

constexpr int most_tensors = 1024;
constexpr int most_dims = 64;

outcome<parameter> parameter_of(const InferParameter& p, const std::string& name) {
  switch (p.parameter_choice_case()) {
  case InferParameter::kBoolParam:
    return parameter{p.bool_param()};
  case InferParameter::kInt64Param:
    return parameter{p.int64_param()};
  case InferParameter::kStringParam:
    return parameter{p.string_param()};
  case InferParameter::kDoubleParam:
    return parameter{p.double_param()};
  case InferParameter::kUint64Param:
    if (p.uint64_param() > std::uint64_t{std::numeric_limits<std::int64_t>::max()})
      return refuse(
          fmt::format("parameter '{}' is {}, larger than 2^63 - 1", name, p.uint64_param()));
    return parameter{static_cast<std::int64_t>(p.uint64_param())};
  case InferParameter::PARAMETER_CHOICE_NOT_SET:
    break;
  }
  return refuse(fmt::format("parameter '{}' has no value", name.substr(0, 64)));
}

outcome<std::uint64_t> size_of(const parameter_map& all, const char* key, const std::string& name) {
  const auto found = all.find(key);
  if (found == all.end())
    return 0;
  const auto value = parameter_of(found->second, key);
  if (!value)
    return tl::unexpected<failure>(value.error());
  const auto* number = std::get_if<std::int64_t>(&*value);
  if (number == nullptr || *number < 0)
    return refuse(fmt::format("parameter '{}' of '{}' must be a whole number", key, name));
  return static_cast<std::uint64_t>(*number);
}

outcome<std::optional<memory_place>> place_of(const parameter_map& all, const std::string& name) {
  const auto region = all.find("shared_memory_region");
  if (region == all.end())
    return std::optional<memory_place>{};
  if (region->second.parameter_choice_case() != InferParameter::kStringParam)
    return refuse(fmt::format("'shared_memory_region' of '{}' must be a string", name));
  const auto offset = size_of(all, "shared_memory_offset", name);
  const auto bytes = size_of(all, "shared_memory_byte_size", name);
  if (!offset || !bytes)
    return tl::unexpected<failure>(offset ? bytes.error() : offset.error());
  return std::optional{memory_place{region->second.string_param(), *offset, *bytes}};
}

outcome<void> read_parameters(const ModelInferRequest& message, infer_request& out) {
  for (const auto& [name, value] : message.parameters()) {
    auto one = parameter_of(value, name);
    if (!one)
      return tl::unexpected<failure>(std::move(one.error()));
    out.parameters[name] = std::move(*one);
  }
  return {};
}

outcome<tensor> read_head(const ModelInferRequest::InferInputTensor& input) {
  const auto type = datatype_of(input.datatype());
  if (!type)
    return refuse(fmt::format("input '{}' has the unknown datatype '{}'",
                              input.name().substr(0, 128), input.datatype().substr(0, 32)));
  if (input.shape_size() > most_dims)
    return refuse(fmt::format("input '{}' has {} dimensions; {} are the most",
                              input.name().substr(0, 128), input.shape_size(), most_dims));
  return tensor{.name = input.name(),
                .type = *type,
                .shape = {input.shape().begin(), input.shape().end()},
                .data = {}};
}

/// The buffers of raw_input_contents, handed out in the order of the inputs.
struct raw_part {
  const ModelInferRequest& message;
  int next = 0;

  [[nodiscard]] bool used() const { return message.raw_input_contents_size() > 0; }
};

outcome<std::string> read_data(const ModelInferRequest::InferInputTensor& input, const tensor& t,
                               raw_part& raw, const shared_memory& memory) {
  const auto place = place_of(input.parameters(), t.name);
  if (!place)
    return tl::unexpected<failure>(place.error());
  if (input.has_contents() && (*place || raw.used()))
    return refuse(fmt::format("contents field must not be specified when using {} for '{}' for "
                              "model '{}'",
                              *place ? "shared memory" : "raw_input_contents", t.name,
                              raw.message.model_name().substr(0, 128)));
  if (*place)
    return memory.read(**place);
  if (!raw.used())
    return data_of(input.contents(), t.type, t.name);
  if (raw.next == raw.message.raw_input_contents_size())
    return refuse(fmt::format("raw_input_contents has {} buffers, and none is left for input '{}'; "
                              "give one for each input that is not in shared memory",
                              raw.next, t.name));
  return raw.message.raw_input_contents(raw.next++);
}

outcome<void> read_inputs(const ModelInferRequest& message, const shared_memory& memory,
                          infer_request& out) {
  if (message.inputs_size() > most_tensors)
    return refuse(fmt::format("the request has {} inputs; {} are the most", message.inputs_size(),
                              most_tensors));
  raw_part raw{message};
  for (const auto& input : message.inputs()) {
    auto t = read_head(input);
    if (!t)
      return tl::unexpected<failure>(std::move(t.error()));
    auto data = read_data(input, *t, raw, memory);
    if (!data)
      return tl::unexpected<failure>(std::move(data.error()));
    t->data = std::move(*data);
    out.inputs.push_back(std::move(*t));
  }
  if (raw.next != message.raw_input_contents_size())
    return refuse(fmt::format("raw_input_contents has {} buffers, of which {} belong to no input",
                              message.raw_input_contents_size(),
                              message.raw_input_contents_size() - raw.next));
  return {};
}

outcome<void> read_outputs(const ModelInferRequest& message, infer_request& out) {
  if (message.outputs_size() > most_tensors)
    return refuse(fmt::format("the request has {} outputs; {} are the most", message.outputs_size(),
                              most_tensors));
  for (const auto& wanted : message.outputs()) {
    const auto classes = size_of(wanted.parameters(), "classification", wanted.name());
    if (!classes)
      return tl::unexpected<failure>(classes.error());
    if (*classes != 0)
      return refuse(failure_code::unsupported,
                    fmt::format("output '{}' has no classes, so 'classification' cannot be served",
                                wanted.name().substr(0, 128)));
    auto place = place_of(wanted.parameters(), wanted.name());
    if (!place)
      return tl::unexpected<failure>(std::move(place.error()));
    out.outputs.push_back({.name = wanted.name(), .binary = true, .memory = std::move(*place)});
  }
  return {};
}

InferParameter to_message(const parameter& p) {
  InferParameter out;
  if (const auto* truth = std::get_if<bool>(&p))
    out.set_bool_param(*truth);
  else if (const auto* whole = std::get_if<std::int64_t>(&p))
    out.set_int64_param(*whole);
  else if (const auto* real = std::get_if<double>(&p))
    out.set_double_param(*real);
  else
    out.set_string_param(engine::text::to_utf8_lossy(std::get<std::string>(p)));
  return out;
}

} // namespace

outcome<infer_request> read_request(const ModelInferRequest& message, const shared_memory& memory) {
  infer_request out;
  out.model = message.model_name();
  out.version = message.model_version();
  out.id = message.id();
  out.arrival = std::chrono::steady_clock::now();
  auto good = read_parameters(message, out);
  if (good)
    good = read_inputs(message, memory, out);
  if (good)
    good = read_outputs(message, out);
  if (!good)
    return tl::unexpected<failure>(failure{good.error().code, id_prefix(out) + good.error().text});
  return out;
}

void write_response(infer_response&& response, inference::ModelInferResponse& message) {
  message.set_model_name(std::move(response.model));
  message.set_model_version(std::move(response.version));
  message.set_id(std::move(response.id));
  // A field of text that is not UTF-8 makes the whole message unreadable to clients.
  for (const auto& [name, value] : response.parameters)
    (*message.mutable_parameters())[engine::text::to_utf8_lossy(name)] = to_message(value);
  for (auto& t : response.outputs) {
    auto& out = *message.add_outputs();
    out.set_name(std::move(t.name));
    out.set_datatype(std::string{to_string(t.type)});
    out.mutable_shape()->Assign(t.shape.begin(), t.shape.end());
    // Clients find the data by the number of the output, so one in shared memory has its place too.
    message.add_raw_output_contents(std::move(t.data));
    if (!t.memory)
      continue;
    auto& where = *out.mutable_parameters();
    where["shared_memory_region"].set_string_param(t.memory->region);
    where["shared_memory_offset"].set_int64_param(static_cast<std::int64_t>(t.memory->offset));
    where["shared_memory_byte_size"].set_int64_param(static_cast<std::int64_t>(t.memory->bytes));
  }
}

} // namespace troupe::actors::kserve
