#include "actors/edge/kserve/text_request.hpp"

#include "actors/edge/kserve/sampling.hpp"
#include "actors/edge/logprobs_json.hpp"
#include "engine/text/utf8.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace troupe::actors::kserve {

namespace {

constexpr std::string_view prefix = "Error generating stream: ";

const tensor* find_input(const infer_request& request, std::string_view name) {
  for (const auto& t : request.inputs)
    if (t.name == name)
      return &t;
  return nullptr;
}

std::optional<bool> truth_of(const infer_request& request, std::string_view name) {
  const auto* t = find_input(request, name);
  if (t == nullptr || t->data.empty())
    return std::nullopt;
  return t->data[0] != 0;
}

tl::unexpected<failure> refuse_generation(failure_code code, std::string_view text) {
  return refuse(code, std::string{prefix} + std::string{text});
}

/// Inputs that are declared, so that clients of the vLLM backend find them, and not served.
outcome<void> refuse_unserved(const infer_request& request, const model_view& model) {
  if (find_input(request, "embedding_request") != nullptr)
    return refuse_generation(failure_code::internal,
                             fmt::format("Model {} does not support 'embed' request", model.name));
  if (find_input(request, "image") != nullptr)
    return refuse_generation(failure_code::internal,
                             fmt::format("Model {} does not support the input 'image'; leave it "
                                         "out",
                                         model.name));
  return {};
}

/// The first element, which alone counts.
outcome<std::string> first_of(const tensor& text) {
  // Even an empty text has a length; no bytes are no element.
  if (text.data.empty())
    return refuse_generation(failure_code::invalid_arg,
                             fmt::format("the input '{}' has no element", text.name));
  return std::string{elements_of(text).at(0)};
}

outcome<std::string> prompt_of(const infer_request& request) {
  const auto* text = find_input(request, "text_input");
  if (text == nullptr)
    return refuse_generation(failure_code::invalid_arg, "the input 'text_input' is missing");
  auto first = first_of(*text);
  if (!first)
    return first;
  const auto& prompt = *first;
  const auto bad = engine::text::find_invalid_utf8(prompt);
  if (bad < prompt.size())
    return refuse_generation(failure_code::invalid_arg,
                             fmt::format("the input 'text_input' is not UTF-8: byte {} begins no "
                                         "character",
                                         bad));
  return first;
}

std::string label_of(const parameter& value) {
  if (const auto* text = std::get_if<std::string>(&value))
    return *text;
  if (const auto* truth = std::get_if<bool>(&value))
    return *truth ? "true" : "false";
  if (const auto* whole = std::get_if<std::int64_t>(&value))
    return std::to_string(*whole);
  return fmt::format("{}", std::get<double>(value));
}

outcome<void> read_sampling(const infer_request& request, const model_view& model,
                            inference_request& out) {
  auto given = request.parameters;
  for (const auto& name : model.declared->own_parameters)
    if (auto own = given.extract(name))
      out.labels[name] = label_of(own.mapped());
  const auto* text = find_input(request, "sampling_parameters");
  if (text == nullptr)
    return read_sampling_parameters(given, out);
  // The input replaces the parameters of the request; the two are not merged.
  const auto first = first_of(*text);
  return first ? read_sampling_text(*first, out) : tl::unexpected<failure>(first.error());
}

tensor text_tensor(std::string name, std::string_view element) {
  tensor t{.name = std::move(name), .type = datatype::bytes, .shape = {1}};
  append_element(t.data, element);
  return t;
}

template <class T>
tensor number_tensor(std::string name, datatype type, T number) {
  tensor t{.name = std::move(name), .type = type, .shape = {1}};
  append_number(t.data, number);
  return t;
}

tensor count_tensor(std::string name, std::uint32_t count) {
  return number_tensor(std::move(name), datatype::uint32, count);
}

std::string logprobs_text(const text_request& request, const response_part& part) {
  if (!request.asks_logprobs)
    return "null";
  return ranked_logprobs(part.likelihoods)
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string_view finish_text(engine::finish_reason reason) {
  return reason == engine::finish_reason::none ? "None" : engine::to_string(reason);
}

} // namespace

outcome<text_request> to_text_request(const infer_request& request, const model_view& model) {
  if (auto good = refuse_unserved(request, model); !good)
    return tl::unexpected(std::move(good.error()));
  text_request made;
  made.stream = truth_of(request, "stream").value_or(false);
  const auto exclude = truth_of(request, "exclude_input_in_output");
  if (made.stream && exclude && !*exclude)
    return refuse_generation(failure_code::internal,
                             "When streaming, `exclude_input_in_output` = False is not allowed.");
  made.exclude_input = exclude.value_or(made.stream);
  made.finish_reason = truth_of(request, "return_finish_reason").value_or(false);
  made.cumulative_logprob = truth_of(request, "return_cumulative_logprob").value_or(false);
  made.logprobs = truth_of(request, "return_logprobs").value_or(false);
  made.num_input_tokens = truth_of(request, "return_num_input_tokens").value_or(false);
  made.num_output_tokens = truth_of(request, "return_num_output_tokens").value_or(false);
  for (const auto& out : request.outputs)
    made.outputs.push_back(out.name);
  auto prompt = prompt_of(request);
  if (!prompt)
    return tl::unexpected(std::move(prompt.error()));
  made.request.model = model.name;
  made.request.prompt_text = std::move(*prompt);
  made.request.arrival = request.arrival;
  if (auto read = read_sampling(request, model, made.request); !read)
    return tl::unexpected(std::move(read.error()));
  made.asks_logprobs = made.request.logprobs.has_value();
  if (made.cumulative_logprob && !made.asks_logprobs)
    made.request.logprobs = 0;
  if (auto read = read_protocol_parameters(request.parameters, made.request); !read)
    return tl::unexpected(std::move(read.error()));
  return made;
}

outcome<text_request> to_tensor_request(infer_request& request, const model_view& model) {
  text_request made;
  made.stream = *model.declared->decoupled;
  made.request.model = model.name;
  made.request.arrival = request.arrival;
  if (auto read = read_protocol_parameters(request.parameters, made.request); !read)
    return tl::unexpected(std::move(read.error()));
  backends::request tensors{.id = request.id, .parameters = request.parameters};
  if (*model.declared->max_batch_size > 0 && !request.inputs.empty())
    made.request.batch_size = static_cast<std::uint32_t>(request.inputs.front().shape.front());
  for (auto& t : request.inputs)
    tensors.inputs.push_back({std::move(t.name), t.type, std::move(t.shape), std::move(t.data)});
  request.inputs.clear();
  for (const auto& out : request.outputs)
    tensors.outputs.push_back(out.name);
  made.request.tensors = std::make_shared<const backends::request>(std::move(tensors));
  return made;
}

std::vector<tensor> text_outputs(const text_request& request, const response_part& part) {
  const auto wanted = [&](std::string_view name) {
    return request.outputs.empty() ||
           std::find(request.outputs.begin(), request.outputs.end(), name) != request.outputs.end();
  };
  std::vector<tensor> all;
  if (wanted("text_output"))
    all.push_back(text_tensor("text_output", request.exclude_input
                                                 ? part.text
                                                 : *request.request.prompt_text + part.text));
  if (request.finish_reason && wanted("finish_reason"))
    all.push_back(text_tensor("finish_reason", finish_text(part.finish)));
  if (request.cumulative_logprob && wanted("cumulative_logprob"))
    all.push_back(number_tensor("cumulative_logprob", datatype::fp32,
                                static_cast<float>(part.cumulative_logprob)));
  if (request.logprobs && wanted("logprobs"))
    all.push_back(text_tensor("logprobs", logprobs_text(request, part)));
  if (request.num_input_tokens && wanted("num_input_tokens"))
    all.push_back(count_tensor("num_input_tokens", part.counts.prompt_tokens));
  if (request.num_output_tokens && wanted("num_output_tokens"))
    all.push_back(count_tensor("num_output_tokens", part.tokens));
  return all;
}

} // namespace troupe::actors::kserve
