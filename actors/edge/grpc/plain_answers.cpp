#include "actors/edge/grpc/plain_answers.hpp"

#include "actors/edge/grpc/status.hpp"
#include "actors/edge/kserve/control.hpp"
#include "actors/edge/kserve/settings.hpp"

#include <google/protobuf/util/json_util.h>
#include <nlohmann/json.hpp>

namespace troupe::actors::kserve {

namespace {

using nlohmann::json;

/// The answers of HTTP are these messages in JSON, with the fields' own names.
Status fill(const outcome<std::string>& text, google::protobuf::Message& out) {
  if (!text)
    return to_status(text.error());
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto read = google::protobuf::util::JsonStringToMessage(*text, &out, options);
  if (!read.ok())
    return to_status({failure_code::internal, read.ToString()});
  return Status::OK;
}

Status done(const outcome<void>& what) { return what ? Status::OK : to_status(what.error()); }

Status no_cuda_memory() {
  return to_status({failure_code::unsupported,
                    "CUDA shared memory is not supported here; use system shared memory"});
}

using log_value = pb::LogSettingsRequest::SettingValue;

json value_of(const log_value& v) {
  switch (v.parameter_choice_case()) {
  case log_value::kBoolParam:
    return v.bool_param();
  case log_value::kUint32Param:
    return v.uint32_param();
  case log_value::kStringParam:
    return v.string_param();
  case log_value::PARAMETER_CHOICE_NOT_SET:
    break;
  }
  return nullptr;
}

} // namespace

Status answer(service& around, const pb::ServerLiveRequest&, pb::ServerLiveResponse& out) {
  out.set_live(around.live());
  return Status::OK;
}

Status answer(service& around, const pb::ServerReadyRequest&, pb::ServerReadyResponse& out) {
  out.set_ready(around.ready());
  return Status::OK;
}

Status answer(service& around, const pb::ModelReadyRequest& in, pb::ModelReadyResponse& out) {
  out.set_ready(around.model_ready(in.name(), in.version()));
  return Status::OK;
}

Status answer(service& around, const pb::ServerMetadataRequest&, pb::ServerMetadataResponse& out) {
  return fill(around.server_json(), out);
}

Status answer(service& around, const pb::ModelMetadataRequest& in, pb::ModelMetadataResponse& out) {
  return fill(around.metadata(in.name(), in.version()), out);
}

Status answer(service& around, const pb::ModelConfigRequest& in, pb::ModelConfigResponse& out) {
  return fill(around.config(in.name(), in.version()), *out.mutable_config());
}

Status answer(service& around, const pb::ModelStatisticsRequest& in,
              pb::ModelStatisticsResponse& out) {
  return fill(around.statistics_json(in.name(), in.version()), out);
}

Status answer(service& around, const pb::RepositoryIndexRequest& in,
              pb::RepositoryIndexResponse& out) {
  if (auto whole = only_repository(in.repository_name()); !whole)
    return to_status(whole.error());
  return fill(R"({"models":)" + around.index(in.ready()) + "}", out);
}

Status answer(service& around, const pb::SystemSharedMemoryStatusRequest& in,
              pb::SystemSharedMemoryStatusResponse& out) {
  const auto all = around.memory().status_json(in.name());
  if (!all)
    return to_status(all.error());
  const auto listed = json::parse(*all);
  for (const auto& one : listed) {
    auto& region = (*out.mutable_regions())[one["name"].get<std::string>()];
    if (const auto filled = fill(one.dump(), region); !filled.ok())
      return filled;
  }
  return Status::OK;
}

Status answer(service& around, const pb::SystemSharedMemoryRegisterRequest& in,
              pb::SystemSharedMemoryRegisterResponse&) {
  return done(around.memory().add(
      in.name(), {.key = in.key(), .offset = in.offset(), .bytes = in.byte_size()}));
}

Status answer(service& around, const pb::SystemSharedMemoryUnregisterRequest& in,
              pb::SystemSharedMemoryUnregisterResponse&) {
  around.memory().remove(in.name());
  return Status::OK;
}

Status answer(service&, const pb::CudaSharedMemoryStatusRequest&,
              pb::CudaSharedMemoryStatusResponse&) {
  return no_cuda_memory();
}

Status answer(service&, const pb::CudaSharedMemoryRegisterRequest&,
              pb::CudaSharedMemoryRegisterResponse&) {
  return no_cuda_memory();
}

Status answer(service&, const pb::CudaSharedMemoryUnregisterRequest&,
              pb::CudaSharedMemoryUnregisterResponse&) {
  return no_cuda_memory();
}

Status answer(service& around, const pb::TraceSettingRequest& in, pb::TraceSettingResponse& out) {
  if (auto known = around.knows(in.model_name()); !known)
    return to_status(known.error());
  auto changes = json::object();
  for (const auto& [name, setting] : in.settings())
    changes[name] = std::vector<std::string>{setting.value().begin(), setting.value().end()};
  const auto all =
      in.settings().empty() ? outcome<std::string>{trace_json()} : change_trace(changes.dump());
  if (!all)
    return to_status(all.error());
  const auto now = json::parse(*all);
  for (const auto& [name, value] : now.items()) {
    auto& setting = (*out.mutable_settings())[name];
    const auto words = value.is_array() ? value : json::array({value});
    for (const auto& word : words)
      setting.add_value(word.get<std::string>());
  }
  return Status::OK;
}

Status answer(service&, const pb::LogSettingsRequest& in, pb::LogSettingsResponse& out) {
  auto changes = json::object();
  for (const auto& [name, setting] : in.settings())
    changes[name] = value_of(setting);
  const auto all =
      in.settings().empty() ? outcome<std::string>{logging_json()} : change_logging(changes.dump());
  if (!all)
    return to_status(all.error());
  const auto now = json::parse(*all);
  for (const auto& [name, value] : now.items()) {
    auto& setting = (*out.mutable_settings())[name];
    if (value.is_boolean())
      setting.set_bool_param(value.get<bool>());
    else if (value.is_number())
      setting.set_uint32_param(value.get<std::uint32_t>());
    else
      setting.set_string_param(value.get<std::string>());
  }
  return Status::OK;
}

} // namespace troupe::actors::kserve
