#include <fmt/core.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>

#include "config/triton_reader.hpp"

namespace troupe::config {

namespace {

template <class Tensor>
tensor_config view_of(const Tensor& tensor, const triton_draft& draft, const std::string& path) {
  tensor_config out;
  out.name = tensor.name();
  out.from = draft.from(path);
  out.type = {static_cast<tensor_type>(tensor.data_type()), draft.from(path + ".data_type")};
  out.dims = {{tensor.dims().begin(), tensor.dims().end()}, draft.from(path + ".dims")};
  if (tensor.has_reshape()) {
    const auto& shape = tensor.reshape().shape();
    out.reshape = {std::vector<std::int64_t>{shape.begin(), shape.end()},
                   draft.from(path + ".reshape")};
  }
  out.is_shape_tensor = tensor.is_shape_tensor();
  if constexpr (std::is_same_v<Tensor, inference::ModelInput>) {
    out.optional = {tensor.optional(), draft.from(path + ".optional")};
    out.allow_ragged_batch = tensor.allow_ragged_batch();
  } else {
    out.label_filename = tensor.label_filename();
  }
  return out;
}

queue_policy view_of(const inference::ModelQueuePolicy& policy) {
  return {.reject = policy.timeout_action() == inference::ModelQueuePolicy::REJECT,
          .default_timeout_us = policy.default_timeout_microseconds(),
          .allow_timeout_override = policy.allow_timeout_override(),
          .max_queue_size = policy.max_queue_size()};
}

dynamic_batching view_of(const inference::ModelDynamicBatching& batching, const origin& from) {
  dynamic_batching out{.preferred_batch_sizes = {},
                       .max_queue_delay_us = batching.max_queue_delay_microseconds(),
                       .priority_levels = batching.priority_levels(),
                       .default_priority_level = batching.default_priority_level(),
                       .default_queue_policy = view_of(batching.default_queue_policy()),
                       .priority_queue_policy = {},
                       .from = from};
  for (const auto size : batching.preferred_batch_size())
    out.preferred_batch_sizes.push_back(static_cast<std::uint32_t>(std::max(size, 1)));
  for (const auto& [level, policy] : batching.priority_queue_policy())
    out.priority_queue_policy.emplace(level, view_of(policy));
  return out;
}

instance_group view_of(const inference::ModelInstanceGroup& group, const triton_draft& draft,
                       const std::string& path) {
  instance_group out;
  out.name = {group.name(), draft.from(path + ".name")};
  out.kind = {static_cast<instance_kind>(group.kind()), draft.from(path + ".kind")};
  out.count = {static_cast<std::uint32_t>(std::max(group.count(), 1)), draft.from(path + ".count")};
  out.gpus.from = draft.from(path + ".gpus");
  for (const auto gpu : group.gpus())
    out.gpus.value.push_back(static_cast<std::uint32_t>(std::max(gpu, 0)));
  return out;
}

/// Fields that the engine answers for and does nothing with.
struct idle_field {
  std::string_view name;
  std::string_view reason;
};
constexpr idle_field idle_fields[] = {
    {"platform", "the backend's name decides"},
    {"optimization", "kernels, graphs and memory are the executor's choice"},
    {"sequence_batching", "every request carries its whole prompt; the prefix cache remembers"},
    {"default_model_filename", "the engine reads <version>/model.json"},
    {"cc_model_filenames", "kernels are chosen by the device's own kind"},
    {"model_warmup", "the engine measures its steps before it is ready"},
    {"model_metrics", "histograms have fixed edges"},
    {"response_cache", "the prefix cache reuses what prompts share"},
};

void list_idle(const triton_draft& draft, triton_model& out) {
  const auto& r = *draft.message.GetReflection();
  for (const auto& row : idle_fields) {
    const std::string name{row.name};
    const auto* field = draft.message.GetDescriptor()->FindFieldByName(name);
    const bool there = field->is_repeated() ? r.FieldSize(draft.message, field) > 0
                                            : r.HasField(draft.message, field);
    const auto first = field->is_map() || !field->is_repeated() ? name : element_path(name, 0U);
    if (there)
      out.without_effect.push_back({name, draft.from(first), std::string{row.reason}});
  }
  for (const auto& [path, from] : draft.origins) {
    if (path == "dynamic_batching.preferred_batch_size" ||
        path == "dynamic_batching.max_queue_delay_microseconds" ||
        path == "dynamic_batching.preserve_ordering")
      out.without_effect.push_back({path, from, "the engine batches continuously"});
    if (path.ends_with(".rate_limiter") || path.ends_with(".host_policy") ||
        path.ends_with(".profile"))
      out.without_effect.push_back({path, from, "the engine places its replicas itself"});
    if (path.ends_with(".allow_ragged_batch") || path.ends_with(".reshape") ||
        path.ends_with(".format") || path.ends_with(".is_non_linear_format_io"))
      out.without_effect.push_back({path, from, "the engine reads texts and switches only"});
  }
}

/// Of a library whose requests all go alone.
void list_batches_of_one(const triton_draft& draft, triton_model& out) {
  for (const auto& [path, from] : draft.origins)
    if (path == "dynamic_batching.preferred_batch_size" ||
        path == "dynamic_batching.max_queue_delay_microseconds")
      out.without_effect.push_back(
          {path, from, fmt::format("max_batch_size is {}", draft.message.max_batch_size())});
}

std::string bytes_of(const inference::ModelConfig& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream{&bytes};
    google::protobuf::io::CodedOutputStream coded{&stream};
    coded.SetSerializationDeterministic(true);
    (void)message.SerializeToCodedStream(&coded);
  }
  return bytes;
}

} // namespace

triton_model make_triton_model(const triton_draft& draft, const repository_entry& entry,
                               std::vector<std::uint64_t> versions) {
  const auto& m = draft.message;
  triton_model out;
  out.name = entry.name;
  out.directory = entry.directory;
  out.config_pbtxt = entry.config_pbtxt.value_or(std::filesystem::path{});
  out.versions = std::move(versions);
  out.backend = {m.backend(), draft.from("backend")};
  out.platform = {m.platform(), draft.from("platform")};
  out.max_batch_size = {static_cast<std::uint32_t>(std::max(m.max_batch_size(), 0)),
                        draft.from("max_batch_size")};
  for (int i = 0; i < m.input_size(); ++i)
    out.inputs.push_back(
        view_of(m.input(i), draft, element_path("input", static_cast<std::size_t>(i))));
  for (int i = 0; i < m.output_size(); ++i)
    out.outputs.push_back(
        view_of(m.output(i), draft, element_path("output", static_cast<std::size_t>(i))));
  out.decoupled = {m.model_transaction_policy().decoupled(),
                   draft.from("model_transaction_policy.decoupled")};
  for (int i = 0; i < m.instance_group_size(); ++i)
    out.instance_groups.push_back(view_of(
        m.instance_group(i), draft, element_path("instance_group", static_cast<std::size_t>(i))));
  for (const auto& [key, value] : m.parameters())
    out.parameters[key] = {value.string_value(), draft.from(element_path("parameters", key))};
  out.metric_tags = {m.metric_tags().begin(), m.metric_tags().end()};
  if (m.has_dynamic_batching())
    out.dynamic_batching = view_of(m.dynamic_batching(), draft.from("dynamic_batching"));
  out.response_cache = {m.response_cache().enable(), draft.from("response_cache.enable")};
  if (is_engine_backend(m.backend()))
    list_idle(draft, out);
  else if (m.has_dynamic_batching() && m.max_batch_size() < 2)
    list_batches_of_one(draft, out);
  out.message = bytes_of(m);
  out.origins = draft.origins;
  out.lines = lines_of(draft);
  return out;
}

} // namespace troupe::config
