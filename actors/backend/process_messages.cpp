#include "actors/backend/process_messages.hpp"

#include "actors/backend/tensor_types.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

namespace troupe::actors {

namespace {

constexpr auto last_type = static_cast<std::uint32_t>(backends::datatype::bf16);

template <class Parameters>
void put_all(Parameters& to, const backends::parameters& from) {
  for (const auto& [key, value] : from) {
    auto& one = *to.Add();
    one.set_key(key);
    auto& v = *one.mutable_value();
    if (const auto* flag = std::get_if<bool>(&value))
      v.set_flag(*flag);
    else if (const auto* whole = std::get_if<std::int64_t>(&value))
      v.set_whole(*whole);
    else if (const auto* real = std::get_if<double>(&value))
      v.set_real(*real);
    else
      v.set_text(std::get<std::string>(value));
  }
}

template <class Parameters>
backends::parameters parameters_in(const Parameters& from) {
  backends::parameters all;
  for (const auto& one : from) {
    const auto& v = one.value();
    if (v.has_flag())
      all[one.key()] = v.flag();
    else if (v.has_whole())
      all[one.key()] = v.whole();
    else if (v.has_real())
      all[one.key()] = v.real();
    else
      all[one.key()] = v.text();
  }
  return all;
}

void put(process::Tensor& to, backends::tensor from) {
  to.set_name(std::move(from.name));
  to.set_type(static_cast<std::uint32_t>(from.type));
  to.mutable_shape()->Add(from.shape.begin(), from.shape.end());
  *to.mutable_data() = std::move(from.data);
}

backends::tensor tensor_in(process::Tensor& from) {
  return {from.name(),
          static_cast<backends::datatype>(from.type()),
          {from.shape().begin(), from.shape().end()},
          std::move(*from.mutable_data())};
}

result<std::vector<backends::tensor_spec>>
specs_in(const google::protobuf::RepeatedPtrField<process::Spec>& from) {
  std::vector<backends::tensor_spec> all;
  for (const auto& spec : from) {
    if (spec.type() > last_type)
      return fail(errc::corrupt_data, "a backend's process declared a tensor of no known type");
    all.push_back({spec.name(),
                   static_cast<backends::datatype>(spec.type()),
                   {spec.dims().begin(), spec.dims().end()},
                   spec.optional()});
  }
  return all;
}

void put_specs(google::protobuf::RepeatedPtrField<process::Spec>& to,
               const std::vector<backends::tensor_spec>& from) {
  for (const auto& spec : from) {
    auto& one = *to.Add();
    one.set_name(spec.name);
    one.set_type(static_cast<std::uint32_t>(spec.type));
    one.mutable_dims()->Add(spec.dims.begin(), spec.dims.end());
    one.set_optional(spec.optional);
  }
}

config::needed_tensor needed(const backends::tensor_spec& spec) {
  return {spec.name, declared_type(spec.type).value_or(config::tensor_type::invalid), spec.dims,
          spec.optional};
}

} // namespace

void put(process::Model& to, const backends::model_facts& from) {
  to.set_name(from.name);
  to.set_version(from.version);
  to.set_directory(from.directory.string());
  for (const auto& [key, value] : from.parameters) {
    auto& one = *to.add_parameters();
    one.set_key(key);
    one.mutable_value()->set_text(value);
  }
  to.set_config_json(from.config_json);
  to.set_instance(from.instance);
}

void put(process::Request& to, const backends::request& from) {
  to.set_id(from.id);
  put_all(*to.mutable_parameters(), from.parameters);
  for (const auto& t : from.inputs)
    put(*to.add_inputs(), t);
  for (const auto& name : from.outputs)
    to.add_outputs(name);
}

void put(process::Response& to, backends::response from) {
  for (auto& t : from.outputs)
    put(*to.add_outputs(), std::move(t));
  put_all(*to.mutable_parameters(), from.parameters);
}

void put(process::Declared& to, const backends::declarations& from) {
  put_specs(*to.mutable_inputs(), from.inputs);
  put_specs(*to.mutable_outputs(), from.outputs);
  if (from.max_batch_size)
    to.set_max_batch_size(*from.max_batch_size);
  if (from.decoupled)
    to.set_decoupled(*from.decoupled);
  to.set_dynamic_batching(from.dynamic_batching);
}

void put(process::Fault& to, const error& from) {
  to.set_code(static_cast<std::uint32_t>(from.code));
  to.set_note(from.note);
}

backends::model_facts facts_in(const process::Model& from) {
  backends::model_facts facts{.name = from.name(),
                              .version = from.version(),
                              .directory = from.directory(),
                              .parameters = {},
                              .config_json = from.config_json(),
                              .instance = from.instance()};
  for (const auto& one : from.parameters())
    facts.parameters[one.key()] = one.value().text();
  return facts;
}

backends::request request_in(process::Request& from) {
  backends::request made{.id = from.id(),
                         .parameters = parameters_in(from.parameters()),
                         .inputs = {},
                         .outputs = {from.outputs().begin(), from.outputs().end()}};
  for (auto& t : *from.mutable_inputs())
    made.inputs.push_back(tensor_in(t));
  return made;
}

result<backends::response> response_in(process::Response& from) {
  backends::response made{.outputs = {}, .parameters = parameters_in(from.parameters())};
  for (auto& t : *from.mutable_outputs()) {
    if (t.type() > last_type)
      return fail(errc::corrupt_data, "a backend's process sent a tensor of no known type");
    made.outputs.push_back(tensor_in(t));
  }
  return made;
}

result<backends::declarations> declarations_in(const process::Declared& from) {
  backends::declarations made;
  auto inputs = specs_in(from.inputs());
  auto outputs = specs_in(from.outputs());
  if (!inputs || !outputs)
    return fail(inputs ? outputs.error() : inputs.error());
  made.inputs = std::move(*inputs);
  made.outputs = std::move(*outputs);
  if (from.has_max_batch_size())
    made.max_batch_size = from.max_batch_size();
  if (from.has_decoupled())
    made.decoupled = from.decoupled();
  made.dynamic_batching = from.dynamic_batching();
  return made;
}

error error_in(const process::Fault& from) {
  const bool known = from.code() > 0 && from.code() <= static_cast<std::uint32_t>(errc::internal);
  return {known ? static_cast<errc>(from.code()) : errc::internal, from.note()};
}

result<std::optional<process::Report>> next_report(std::string& from) {
  std::uint32_t length = 0;
  if (from.size() < sizeof length)
    return std::nullopt;
  std::memcpy(&length, from.data(), sizeof length);
  if (length > static_cast<std::uint32_t>(INT32_MAX))
    return fail(errc::corrupt_data, "sent what is no message");
  if (from.size() - sizeof length < length)
    return std::nullopt;
  process::Report report;
  if (!report.ParseFromArray(from.data() + sizeof length, static_cast<int>(length)))
    return fail(errc::corrupt_data, "sent what is no message");
  from.erase(0, sizeof length + length);
  return report;
}

config::backend_needs needs_of(const backends::declarations& wishes) {
  config::backend_needs needs;
  std::transform(wishes.inputs.begin(), wishes.inputs.end(), std::back_inserter(needs.inputs),
                 needed);
  std::transform(wishes.outputs.begin(), wishes.outputs.end(), std::back_inserter(needs.outputs),
                 needed);
  needs.max_batch_size = wishes.max_batch_size;
  needs.decoupled = wishes.decoupled;
  needs.dynamic_batching = wishes.dynamic_batching;
  return needs;
}

} // namespace troupe::actors
