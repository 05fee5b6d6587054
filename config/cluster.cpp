#include "troupe/config/cluster.hpp"

#include <fmt/core.h>

#include <algorithm>

namespace troupe::config {

std::string to_string(const address& a) {
  const bool v6 = a.host.find(':') != std::string::npos;
  return v6 ? fmt::format("[{}]:{}", a.host, a.port) : fmt::format("{}:{}", a.host, a.port);
}

std::string to_string(const device& d) {
  return d.kind == device_kind::cpu ? "cpu" : fmt::format("cuda:{}", d.index);
}

const node_config* find_node(const cluster_config& cluster, std::string_view name) {
  for (const auto& node : cluster.nodes) {
    if (*node.name == name)
      return &node;
  }
  return nullptr;
}

bool starts_with(const control_settings& control, std::string_view model) {
  const auto& names = *control.load_models;
  return *control.mode != control_mode::by_request ||
         std::any_of(names.begin(), names.end(),
                     [&](const auto& name) { return name == "*" || name == model; });
}

const model_config* find_model(const cluster_config& cluster, std::string_view name) {
  for (const auto& model : cluster.models) {
    const auto& served = *model.engine.served_model_name;
    if (model.name == name || std::find(served.begin(), served.end(), name) != served.end())
      return &model;
  }
  return nullptr;
}

std::vector<model_config> without_engine(const triton_model& model) {
  std::vector<model_config> all;
  for (std::size_t i = 0; i < model.versions.size(); ++i) {
    auto& made = all.emplace_back();
    made.name = model.name;
    made.version = model.versions[i];
    made.model_json = model.directory / std::to_string(made.version) / "model.json";
    made.engine.served_model_name = {{model.name}, {}};
    if (model.dynamic_batching && model.dynamic_batching->default_queue_policy.max_queue_size > 0)
      made.max_queued_requests = {model.dynamic_batching->default_queue_policy.max_queue_size,
                                  model.dynamic_batching->from};
    made.triton = model;
    if (i < model.libraries.size())
      made.triton.library = model.libraries[i];
  }
  return all;
}

engine_args with_measured(engine_args args, std::uint32_t max_num_batched_tokens) {
  if (*args.max_num_batched_tokens)
    return args;
  const auto tokens = std::max(max_num_batched_tokens, *args.max_num_seqs);
  args.max_num_batched_tokens = {tokens, {origin_kind::measured, "", 0, ""}};
  return args;
}

} // namespace troupe::config
