#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "config/completion.hpp"
#include "config/text.hpp"

namespace troupe::config {

namespace {

constexpr std::int32_t most_instances = 1024;

/// Reports at a field of the draft.
class field_errors {
public:
  field_errors(const triton_draft& draft, diagnostic_sink& sink) : draft_{draft}, sink_{sink} {}

  void at(const std::string& path, std::string message, errc code = errc::invalid_argument) {
    sink_.error(code, draft_.place(path), path, std::move(message));
  }

private:
  const triton_draft& draft_;
  diagnostic_sink& sink_;
};

/// What holds for inputs and outputs of any backend, before anything is completed.
template <class Tensors>
void check_tensors(const Tensors& tensors, std::string_view list, field_errors& wrong) {
  std::set<std::string> names;
  for (int i = 0; i < tensors.size(); ++i) {
    const auto path = element_path(list, static_cast<std::size_t>(i));
    const auto& tensor = tensors[i];
    if (tensor.name().empty() || !is_clean_text(tensor.name()))
      wrong.at(path, fmt::format("model {} must specify 'name', of printable characters", list));
    else if (!names.insert(tensor.name()).second)
      wrong.at(path + ".name",
               fmt::format("{} is the name of two {}s; names are unique", in_quotes(tensor.name()),
                           list),
               errc::conflict);
    for (const auto dim : tensor.dims()) {
      if (dim != -1 && dim < 1)
        wrong.at(path + ".dims",
                 fmt::format("model {} '{}': a dimension is -1 or at least 1, not {}", list,
                             tensor.name(), dim));
    }
  }
}

void check_group(const inference::ModelInstanceGroup& group, const std::string& path,
                 const triton_draft& draft, field_errors& wrong) {
  using group_type = inference::ModelInstanceGroup;
  if (draft.said(path + ".count") && (group.count() < 1 || group.count() > most_instances))
    wrong.at(path + ".count", fmt::format("must be from 1 to {}, not {}; leave it out for 1",
                                          most_instances, group.count()));
  std::set<std::int32_t> seen;
  for (const auto gpu : group.gpus()) {
    if (gpu < 0 || gpu > 1023)
      wrong.at(path + ".gpus", fmt::format("{} is no index of a GPU", gpu));
    else if (!seen.insert(gpu).second)
      wrong.at(path + ".gpus", fmt::format("GPU {} is listed twice", gpu), errc::conflict);
  }
  const bool gpus_mean_nothing =
      group.kind() == group_type::KIND_CPU || group.kind() == group_type::KIND_MODEL;
  if (gpus_mean_nothing && !group.gpus().empty())
    wrong.at(path + ".gpus",
             fmt::format("instance group of model '{}' has kind {} but specifies one or more GPUs; "
                         "remove them, or write KIND_GPU",
                         draft.message.name(), group_type::Kind_Name(group.kind())),
             errc::conflict);
  if (group.passive())
    wrong.at(path + ".passive", "passive instances are not supported; remove the line",
             errc::unsupported);
  if (!group.secondary_devices().empty())
    wrong.at(path + ".secondary_devices[0]",
             "secondary devices are not supported; remove the block", errc::unsupported);
}

void check_versions(const triton_draft& draft, field_errors& wrong) {
  const auto& policy = draft.message.version_policy();
  if (draft.said("version_policy.latest.num_versions") && policy.latest().num_versions() == 0)
    wrong.at("version_policy.latest.num_versions", "must be at least 1; leave it out for 1");
  if (policy.has_specific() && policy.specific().versions().empty())
    wrong.at("version_policy.specific", "names no version; write e.g. specific { versions: [1] }");
  for (const auto version : policy.specific().versions()) {
    if (version < 1)
      wrong.at("version_policy.specific.versions",
               fmt::format("{} is no version; versions are integers from 1", version));
  }
}

void check_batching(const triton_draft& draft, field_errors& wrong) {
  const auto& m = draft.message;
  if (m.max_batch_size() < 0)
    wrong.at("max_batch_size",
             fmt::format("'max_batch_size' must be non-negative value for {}", m.name()));
  for (const auto size : m.dynamic_batching().preferred_batch_size()) {
    if (size < 1 || (m.max_batch_size() > 0 && size > m.max_batch_size()))
      wrong.at("dynamic_batching.preferred_batch_size",
               fmt::format("dynamic batching preferred size must be positive and at most "
                           "max_batch_size {} for {}, not {}",
                           m.max_batch_size(), m.name(), size));
  }
  const auto levels = m.dynamic_batching().priority_levels();
  if (m.dynamic_batching().default_priority_level() > levels)
    wrong.at("dynamic_batching.default_priority_level",
             fmt::format("{} is more than priority_levels {}",
                         m.dynamic_batching().default_priority_level(), levels),
             errc::conflict);
}

/// What no backend gets here.
void check_refused(const triton_draft& draft, field_errors& wrong) {
  const auto& m = draft.message;
  if (m.has_ensemble_scheduling() || m.platform() == "ensemble")
    wrong.at(m.has_ensemble_scheduling() ? "ensemble_scheduling" : "platform",
             "ensembles are not supported; call the models one after the other, or write a backend "
             "that does",
             errc::unsupported);
  if (m.has_model_repository_agents())
    wrong.at("model_repository_agents",
             "agents that rewrite a model before it is loaded are not supported; remove the block",
             errc::unsupported);
  if (m.has_model_operations())
    wrong.at("model_operations", "libraries of operations are not supported; remove the block",
             errc::unsupported);
  const bool decoupled = m.model_transaction_policy().decoupled();
  if (m.response_cache().enable() && (decoupled || m.has_sequence_batching()))
    wrong.at("response_cache.enable",
             fmt::format("a response cache is not possible with {} (by {}); remove one of them",
                         decoupled ? "decoupled: true" : "sequence_batching",
                         to_string(draft.from(decoupled ? "model_transaction_policy.decoupled"
                                                        : "sequence_batching"))),
             errc::conflict);
}

} // namespace

void check_draft(const triton_draft& draft, std::string_view directory, diagnostic_sink& sink) {
  field_errors wrong{draft, sink};
  const auto& m = draft.message;
  if (m.name() != directory)
    wrong.at("name",
             fmt::format("unexpected directory name '{}' for model '{}', directory name "
                         "must equal model name",
                         directory, m.name()),
             errc::conflict);
  check_tensors(m.input(), "input", wrong);
  check_tensors(m.output(), "output", wrong);
  for (int i = 0; i < m.instance_group_size(); ++i)
    check_group(m.instance_group(i), element_path("instance_group", static_cast<std::size_t>(i)),
                draft, wrong);
  check_versions(draft, wrong);
  check_batching(draft, wrong);
  check_refused(draft, wrong);
  // After completion by a backend that comes with the program none is missing any more.
  if (find_backend(m.backend()) != nullptr || m.backend().empty())
    return;
  for (int i = 0; i < m.input_size(); ++i) {
    const auto path = element_path("input", static_cast<std::size_t>(i));
    if (m.input(i).data_type() == inference::TYPE_INVALID)
      wrong.at(path, fmt::format("model input '{}' must specify 'data_type'", m.input(i).name()));
    if (m.input(i).dims().empty())
      wrong.at(path, fmt::format("model input '{}' must specify 'dims'", m.input(i).name()));
  }
  for (int i = 0; i < m.output_size(); ++i) {
    const auto path = element_path("output", static_cast<std::size_t>(i));
    if (m.output(i).data_type() == inference::TYPE_INVALID)
      wrong.at(path, fmt::format("model output '{}' must specify 'data_type'", m.output(i).name()));
    if (m.output(i).dims().empty())
      wrong.at(path, fmt::format("model output '{}' must specify 'dims'", m.output(i).name()));
  }
}

void check_for_engine(const triton_draft& draft, diagnostic_sink& sink) {
  field_errors wrong{draft, sink};
  const auto& m = draft.message;
  if (!m.runtime().empty())
    wrong.at("runtime",
             fmt::format("{} cannot be honoured: the backend {} is the engine of this program; "
                         "remove the line, or name a backend of your own",
                         in_quotes(m.runtime()), m.backend()),
             errc::unsupported);
  for (const auto& [name, there] : {std::pair{"batch_input", !m.batch_input().empty()},
                                    {"batch_output", !m.batch_output().empty()}}) {
    if (there)
      wrong.at(element_path(name, std::size_t{0}),
               "the engine makes its batches itself; remove the block", errc::unsupported);
  }
  for (int i = 0; i < m.input_size(); ++i) {
    const auto path = element_path("input", static_cast<std::size_t>(i));
    if (m.input(i).is_shape_tensor())
      wrong.at(path + ".is_shape_tensor", "the engine has no shape tensors; remove the line",
               errc::unsupported);
  }
}

void check_for_library(const triton_draft& draft, diagnostic_sink& sink) {
  field_errors wrong{draft, sink};
  const auto& m = draft.message;
  std::int64_t instances = 0;
  for (const auto& group : m.instance_group())
    instances += std::max(group.count(), 1);
  if (m.dynamic_batching().preserve_ordering() && instances > 1)
    wrong.at("dynamic_batching.preserve_ordering",
             fmt::format("answers keep the order of requests with one instance only, and {} has "
                         "{}; remove the line, or all instances but one",
                         m.name(), instances),
             errc::unsupported);
  if (m.has_sequence_batching())
    wrong.at(
        "sequence_batching",
        "requests of a sequence are not kept together for backends of people's own; remove the "
        "block, and let the client send what a request needs",
        errc::unsupported);
}

} // namespace troupe::config
