#include <fmt/core.h>

#include <algorithm>

#include "config/reader.hpp"
#include "config/triton_reader.hpp"

namespace troupe::config {

namespace {

using group_type = inference::ModelInstanceGroup;

/// The GPUs that the kernel shows.
std::uint32_t gpus_here() {
  std::uint32_t count = 0;
  std::error_code ec;
  for (std::uint32_t i = 0; i < 1024; ++i)
    count += std::filesystem::exists(fmt::format("/dev/nvidia{}", i), ec) ? 1 : 0;
  return count;
}

/// Which GPUs instances may go to: those of the cluster file, or else of the machine.
struct gpu_choice {
  std::vector<std::uint32_t> all;
  /// Where the cluster file names devices.
  std::optional<origin> from;
};

gpu_choice choose_gpus(const cluster_config& cluster, const load_options& options) {
  gpu_choice out;
  for (const auto& node : cluster.nodes) {
    if (!is_explicit(node.devices.from))
      continue;
    out.from = node.devices.from;
    for (const auto& d : *node.devices) {
      if (d.kind == device_kind::cuda)
        out.all.push_back(d.index);
    }
  }
  if (!out.from) {
    const auto count = options.gpus ? *options.gpus : gpus_here();
    for (std::uint32_t i = 0; i < count; ++i)
      out.all.push_back(i);
  }
  std::sort(out.all.begin(), out.all.end());
  out.all.erase(std::unique(out.all.begin(), out.all.end()), out.all.end());
  return out;
}

class group_placer {
public:
  group_placer(const triton_draft& draft, const cluster_config& cluster,
               const load_options& options, model_config& engine, diagnostic_sink& sink)
      : draft_{draft}, cluster_{cluster}, options_{options}, engine_{engine}, sink_{sink} {}

  void place() {
    const auto& groups = draft_.message.instance_group();
    const auto errors = sink_.error_count();
    for (int i = 0; i < groups.size(); ++i)
      add(groups[i], element_path("instance_group", static_cast<std::size_t>(i)));
    if (groups.empty() || sink_.error_count() > errors)
      return;
    const bool mixed = std::any_of(groups.begin(), groups.end(), by_backend) &&
                       !std::all_of(groups.begin(), groups.end(), by_backend);
    const auto from = draft_.place("instance_group[0]");
    if (mixed) {
      sink_.error(errc::unsupported, from, "instance_group",
                  "groups of KIND_MODEL or KIND_AUTO beside groups of KIND_GPU or KIND_CPU are not "
                  "supported; give all the same kind");
      return;
    }
    set_instances(from);
    if (!devices_.empty())
      engine_.devices = {devices_, from};
  }

private:
  /// The engine places these on the devices of the node.
  static bool by_backend(const group_type& group) {
    return group.kind() == group_type::KIND_MODEL || group.kind() == group_type::KIND_AUTO;
  }

  void add(const group_type& group, const std::string& path) {
    const auto count = static_cast<std::uint32_t>(std::max(group.count(), 1));
    counted_ = counted_ || draft_.said(path + ".count");
    if (group.kind() == group_type::KIND_GPU) {
      for (const auto index : gpus_of(group, path)) {
        devices_.insert(devices_.end(), count, device{device_kind::cuda, index});
        total_ += count;
      }
      return;
    }
    if (group.kind() == group_type::KIND_CPU)
      devices_.insert(devices_.end(), count, device{device_kind::cpu, 0});
    total_ += count;
  }

  std::vector<std::uint32_t> gpus_of(const group_type& group, const std::string& path) {
    const auto ranks = *engine_.engine.tensor_parallel_size;
    if (ranks > 1)
      sink_.error(
          errc::conflict, draft_.place(path + ".kind"), path + ".kind",
          fmt::format("KIND_GPU puts an instance on one GPU, but tensor_parallel_size is {} "
                      "(by {}); please specify KIND_MODEL",
                      ranks, to_string(engine_.engine.tensor_parallel_size.from)));
    const auto choice = choose_gpus(cluster_, options_);
    if (!options_.capabilities.cuda || choice.all.empty()) {
      sink_.error(errc::unsupported, draft_.place(path + ".kind"), path + ".kind",
                  fmt::format("KIND_GPU, but {}; write KIND_CPU or KIND_MODEL",
                              !options_.capabilities.cuda ? "this build has no CUDA"
                              : choice.from ? fmt::format("no node has one (devices by {})",
                                                          to_string(*choice.from))
                                            : "there is no GPU here"));
      return {};
    }
    if (group.gpus().empty())
      return choice.all;
    std::vector<std::uint32_t> wanted;
    for (const auto gpu : group.gpus()) {
      const auto index = static_cast<std::uint32_t>(std::max(gpu, 0));
      if (std::find(choice.all.begin(), choice.all.end(), index) == choice.all.end())
        sink_.error(errc::conflict, draft_.place(path + ".gpus"), path + ".gpus",
                    fmt::format("GPU {} is not there: {}", index,
                                choice.from
                                    ? "the devices by " + to_string(*choice.from)
                                    : fmt::format("this machine has {}", choice.all.size())));
      wanted.push_back(index);
    }
    return wanted;
  }

  void set_instances(const origin& from) {
    auto& instances = engine_.instances;
    const bool in_file = instances.from.kind == origin_kind::user_file;
    if (counted_ && in_file && *instances != total_)
      sink_.error(errc::conflict, from, "instance_group",
                  fmt::format("makes {} instances, but {} has {} at {}; what is said twice must "
                              "agree, so remove one",
                              total_, join_path(join_path("models", engine_.name), "instances"),
                              *instances, to_string(instances.from)));
    if (!is_explicit(instances.from))
      instances = {total_, from};
  }

  const triton_draft& draft_;
  const cluster_config& cluster_;
  const load_options& options_;
  model_config& engine_;
  diagnostic_sink& sink_;
  std::vector<device> devices_;
  std::uint32_t total_ = 0;
  bool counted_ = false;
};

} // namespace

void apply_to_engine(const triton_draft& draft, const cluster_config& cluster,
                     const load_options& options, model_config& engine, diagnostic_sink& sink) {
  group_placer{draft, cluster, options, engine, sink}.place();
  const std::string path = "dynamic_batching.default_queue_policy.max_queue_size";
  const auto size = draft.message.dynamic_batching().default_queue_policy().max_queue_size();
  if (size == 0)
    return;
  auto& limit = engine.max_queued_requests;
  if (limit.from.kind == origin_kind::user_file && *limit != size)
    sink.error(errc::conflict, draft.place(path), path,
               fmt::format("{} here, but {} has {} at {}; what is said twice must agree, so remove "
                           "one",
                           size, join_path(join_path("models", engine.name), "max_queued_requests"),
                           *limit, to_string(limit.from)));
  if (!is_explicit(limit.from))
    limit = {size, draft.from(path)};
}

} // namespace troupe::config
