#include "config/completion.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "config/text.hpp"

namespace troupe::config {

namespace {

using inference::TYPE_BOOL;
using inference::TYPE_FP32;
using inference::TYPE_STRING;
using inference::TYPE_UINT32;

constexpr std::array<std::int64_t, 1> one{1};
constexpr std::array<std::int64_t, 1> many{-1};

/// What Triton's vLLM backend declares, in its order.
constexpr std::array<backend_tensor, 11> engine_inputs{{
    {"text_input", TYPE_STRING, one, false},
    {"image", TYPE_STRING, many, true},
    {"stream", TYPE_BOOL, one, true},
    {"sampling_parameters", TYPE_STRING, one, true},
    {"exclude_input_in_output", TYPE_BOOL, one, true},
    {"return_finish_reason", TYPE_BOOL, one, true},
    {"return_cumulative_logprob", TYPE_BOOL, one, true},
    {"return_logprobs", TYPE_BOOL, one, true},
    {"return_num_input_tokens", TYPE_BOOL, one, true},
    {"return_num_output_tokens", TYPE_BOOL, one, true},
    {"embedding_request", TYPE_STRING, one, true},
}};

constexpr std::array<backend_tensor, 6> engine_outputs{{
    {"text_output", TYPE_STRING, many, false},
    {"finish_reason", TYPE_STRING, many, false},
    {"cumulative_logprob", TYPE_FP32, many, false},
    {"logprobs", TYPE_STRING, many, false},
    {"num_input_tokens", TYPE_UINT32, one, false},
    {"num_output_tokens", TYPE_UINT32, many, false},
}};

constexpr std::array<backend_row, 2> backends{{
    {"troupe", engine_inputs, engine_outputs, 0, true, true},
    {"vllm", engine_inputs, engine_outputs, 0, true, true},
}};

/// Fills and checks the tensors of one list: `input` or `output`.
template <class Tensor>
class tensor_completer {
public:
  tensor_completer(triton_draft& draft, std::string_view list, const backend_row& backend,
                   diagnostic_sink& sink)
      : draft_{draft}, list_{list}, backend_{backend}, by_{origin_kind::auto_completion, "", 0,
                                                           fmt::format("backend {}", backend.name)},
        sink_{sink} {}

  void complete(google::protobuf::RepeatedPtrField<Tensor>& tensors,
                std::span<const backend_tensor> rows) {
    const int written = tensors.size();
    for (const auto& row : rows) {
      const auto found = std::find_if(tensors.begin(), tensors.begin() + written,
                                      [&](const auto& t) { return t.name() == row.name; });
      const auto index = static_cast<std::size_t>(found - tensors.begin());
      const bool added = found == tensors.begin() + written;
      auto& tensor = added ? *tensors.Add() : tensors[static_cast<int>(index)];
      const auto path =
          element_path(list_, added ? static_cast<std::size_t>(tensors.size()) - 1 : index);
      if (added) {
        tensor.set_name(std::string{row.name});
        draft_.origins[path] = by_;
        draft_.origins[path + ".name"] = by_;
      }
      fill(tensor, row, path);
    }
    for (int i = 0; i < written; ++i)
      look_at_stranger(tensors[i], rows, element_path(list_, static_cast<std::size_t>(i)));
  }

private:
  void fill(Tensor& tensor, const backend_tensor& row, const std::string& path) {
    if (!draft_.said(path + ".data_type"))
      set(path + ".data_type", [&] { tensor.set_data_type(row.type); });
    else if (tensor.data_type() != row.type)
      refuse(path + ".data_type", tensor.name(), inference::DataType_Name(tensor.data_type()),
             inference::DataType_Name(row.type));
    if (!draft_.said(path + ".dims"))
      set(path + ".dims", [&] { tensor.mutable_dims()->Assign(row.dims.begin(), row.dims.end()); });
    else if (!fits(tensor, row))
      refuse(path + ".dims", tensor.name(), dims_text(tensor.dims()), dims_text(row.dims));
    if constexpr (std::is_same_v<Tensor, inference::ModelInput>) {
      if (!draft_.said(path + ".optional") && row.optional)
        set(path + ".optional", [&] { tensor.set_optional(true); });
      else if (tensor.optional() && !row.optional)
        refuse(path + ".optional", tensor.name(), "true", "false");
    }
  }

  /// Whether the backend can live with the written shape: the same number of dimensions, each the
  /// same or open on one side.
  [[nodiscard]] bool fits(const Tensor& tensor, const backend_tensor& row) const {
    if (tensor.dims_size() != static_cast<int>(row.dims.size()))
      return false;
    return std::equal(tensor.dims().begin(), tensor.dims().end(), row.dims.begin(),
                      [&](std::int64_t written, std::int64_t needed) {
                        const bool narrower = needed == -1 && (!backend_.built_in || written == 1);
                        return written == needed || written == -1 || narrower;
                      });
  }

  /// A tensor that the backend does not know is kept, as Triton keeps it.
  void look_at_stranger(const Tensor& tensor, std::span<const backend_tensor> rows,
                        const std::string& path) {
    if (!backend_.built_in)
      return;
    std::vector<std::string_view> names;
    for (const auto& row : rows)
      names.push_back(row.name);
    if (std::find(names.begin(), names.end(), tensor.name()) != names.end())
      return;
    sink_.warn(draft_.place(path), path,
               fmt::format("the backend {} neither reads nor writes {}{}", backend_.name,
                           in_quotes(tensor.name()), did_you_mean(tensor.name(), names)));
  }

  template <class Set>
  void set(const std::string& path, Set&& apply) {
    std::forward<Set>(apply)();
    draft_.origins[path] = by_;
  }

  void refuse(const std::string& path, const std::string& tensor, const std::string& written,
              const std::string& needed) {
    sink_.error(errc::conflict, draft_.place(path), path,
                fmt::format("{} of {} is {} here, but the backend {} needs {}; remove the line, or "
                            "write that",
                            path.substr(path.rfind('.') + 1), in_quotes(tensor), written,
                            backend_.name, needed));
  }

  template <class Dims>
  static std::string dims_text(const Dims& dims) {
    std::string text;
    for (const auto dim : dims)
      text += fmt::format("{}{}", text.empty() ? "" : ", ", dim);
    return "[" + text + "]";
  }

  triton_draft& draft_;
  std::string_view list_;
  const backend_row& backend_;
  origin by_;
  diagnostic_sink& sink_;
};

void complete_batch_size(triton_draft& draft, const backend_row& backend, const origin& by,
                         diagnostic_sink& sink) {
  constexpr auto path = "max_batch_size";
  const auto written = draft.message.max_batch_size();
  if (!backend.max_batch_size)
    return;
  const auto most = static_cast<std::int32_t>(*backend.max_batch_size);
  if (!draft.said(path)) {
    draft.message.set_max_batch_size(most);
    draft.origins[path] = by;
  } else if (written > most) {
    sink.error(errc::conflict, draft.place(path), path,
               fmt::format("configuration specified max_batch_size {}, but in "
                           "auto-complete-config function for model '{}' specified "
                           "max_batch_size {}: the backend {} {}; remove the line, or write {}",
                           written, draft.message.name(), most, backend.name,
                           most == 0 ? "batches requests by itself" : "takes no larger batch",
                           most));
  }
}

void complete_decoupled(triton_draft& draft, const backend_row& backend, const origin& by,
                        diagnostic_sink& sink) {
  const std::string path = "model_transaction_policy.decoupled";
  if (!backend.decoupled)
    return;
  if (draft.said(path)) {
    const bool written = draft.message.model_transaction_policy().decoupled();
    if (written != *backend.decoupled)
      sink.error(errc::conflict, draft.place(path), path,
                 fmt::format("trying to change decoupled property in auto-complete-config for "
                             "model '{}', which is already set to '{}': the backend {} needs {}; "
                             "remove the line",
                             draft.message.name(), written ? "True" : "False", backend.name,
                             *backend.decoupled));
    return;
  }
  draft.message.mutable_model_transaction_policy()->set_decoupled(*backend.decoupled);
  draft.origins.emplace("model_transaction_policy", by);
  draft.origins[path] = by;
}

} // namespace

const backend_row* find_backend(std::string_view name) noexcept {
  const auto found =
      std::find_if(backends.begin(), backends.end(), [&](const auto& b) { return b.name == name; });
  return found == backends.end() ? nullptr : &*found;
}

void complete_for_backend(triton_draft& draft, const backend_row& backend, diagnostic_sink& sink) {
  const origin by{origin_kind::auto_completion, "", 0, fmt::format("backend {}", backend.name)};
  tensor_completer<inference::ModelInput>{draft, "input", backend, sink}.complete(
      *draft.message.mutable_input(), backend.inputs);
  tensor_completer<inference::ModelOutput>{draft, "output", backend, sink}.complete(
      *draft.message.mutable_output(), backend.outputs);
  complete_batch_size(draft, backend, by, sink);
  complete_decoupled(draft, backend, by, sink);
}

namespace {

std::vector<backend_tensor> rows_of(const std::vector<needed_tensor>& tensors) {
  std::vector<backend_tensor> rows;
  for (const auto& t : tensors)
    rows.push_back({t.name, static_cast<inference::DataType>(t.type), t.dims, t.optional});
  return rows;
}

/// As Triton: batches are made where the backend wants them and nobody chose otherwise, and the
/// largest is preferred unless sizes are written.
void complete_batching(triton_draft& draft, const backend_needs& needs) {
  auto& m = draft.message;
  const bool free = m.scheduling_choice_case() == inference::ModelConfig::SCHEDULING_CHOICE_NOT_SET;
  if (needs.dynamic_batching && free && m.max_batch_size() > 1) {
    m.mutable_dynamic_batching();
    draft.origins["dynamic_batching"] = {origin_kind::auto_completion, "", 0,
                                         fmt::format("backend {}", m.backend())};
  }
  if (!m.has_dynamic_batching() || m.max_batch_size() < 1 ||
      m.dynamic_batching().preferred_batch_size_size() > 0)
    return;
  m.mutable_dynamic_batching()->add_preferred_batch_size(m.max_batch_size());
  draft.origins["dynamic_batching.preferred_batch_size"] = {};
}

} // namespace

void complete_for_library(triton_draft& draft, const backend_needs& needs, diagnostic_sink& sink) {
  const std::string name = draft.message.backend();
  const auto inputs = rows_of(needs.inputs);
  const auto outputs = rows_of(needs.outputs);
  complete_for_backend(draft, {name, inputs, outputs, needs.max_batch_size, needs.decoupled}, sink);
  complete_batching(draft, needs);
}

void complete_defaults(triton_draft& draft, bool engine, std::uint32_t instances,
                       const origin& from) {
  auto& m = draft.message;
  const origin usual{};
  const auto absent = [&](const std::string& path) {
    return draft.origins.emplace(path, usual).second;
  };
  if (m.version_policy().policy_choice_case() ==
      inference::ModelVersionPolicy::POLICY_CHOICE_NOT_SET)
    m.mutable_version_policy()->mutable_latest();
  absent("version_policy");
  if (m.version_policy().has_latest()) {
    absent("version_policy.latest");
    if (absent("version_policy.latest.num_versions"))
      m.mutable_version_policy()->mutable_latest()->set_num_versions(1);
  }
  absent("max_batch_size");
  absent("model_transaction_policy");
  absent("model_transaction_policy.decoupled");
  m.mutable_model_transaction_policy();
  if (m.instance_group().empty()) {
    auto& group = *m.add_instance_group();
    group.set_name(m.name());
    group.set_count(static_cast<std::int32_t>(instances));
    group.set_kind(engine ? inference::ModelInstanceGroup::KIND_MODEL
                          : inference::ModelInstanceGroup::KIND_CPU);
    for (const auto* path :
         {"instance_group[0]", "instance_group[0].name", "instance_group[0].kind"})
      draft.origins[path] = usual;
    draft.origins["instance_group[0].count"] = from;
    return;
  }
  for (int i = 0; i < m.instance_group_size(); ++i) {
    const auto path = element_path("instance_group", static_cast<std::size_t>(i));
    auto& group = *m.mutable_instance_group(i);
    if (absent(path + ".name"))
      group.set_name(fmt::format("{}_{}", m.name(), i));
    if (absent(path + ".count"))
      group.set_count(m.instance_group_size() == 1 ? static_cast<std::int32_t>(instances) : 1);
    absent(path + ".kind");
  }
}

} // namespace troupe::config
