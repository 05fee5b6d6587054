#include "transport/ucx/context.hpp"

#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <cstdio>
#include <cstdlib>

namespace troupe::net::ucx {

namespace {

/// What the environment and UCX's defaults say about a variable, as UCX itself prints it.
std::string configured(const ucp_config_t* config, std::string_view name) {
  char* text = nullptr;
  std::size_t size = 0;
  auto* out = open_memstream(&text, &size);
  if (out == nullptr)
    return {};
  ucp_config_print(config, out, nullptr, UCS_CONFIG_PRINT_CONFIG);
  std::fclose(out);
  std::string all{text, size};
  std::free(text);
  const auto key = fmt::format("{}=", name);
  auto at = all.find(key);
  while (at != std::string::npos && at != 0 && all[at - 1] != '\n')
    at = all.find(key, at + 1);
  if (at == std::string::npos)
    return {};
  at += key.size();
  return all.substr(at, all.find('\n', at) - at);
}

/// Sets a variable that the operator left at UCX's default, "all". @return the value that rules
std::string choose(ucp_config_t* config, const char* name, const std::string& wanted) {
  const auto now = configured(config, fmt::format("UCX_{}", name));
  if (wanted.empty() || now != "all")
    return now;
  const auto status = ucp_config_modify(config, name, wanted.c_str());
  if (status != UCS_OK)
    log_warn("UCX_{} cannot be set to {}: {}", name, wanted, ucs_status_string(status));
  return status == UCS_OK ? wanted : now;
}

} // namespace

error to_error(ucs_status_t status, errc code, std::string_view what) {
  return {code, fmt::format("{}: {}", what, ucs_status_string(status))};
}

void prepare_environment(std::string_view transports) {
  struct variable {
    const char* name;
    /// Set only where this transport is in use: UCX complains, on the standard output, about
    /// variables that it does not read.
    std::string_view transport;
  };
  constexpr variable variables[] = {{"UCX_POSIX_ERROR_HANDLING", "posix"},
                                    {"UCX_CMA_MEMORY_INVALIDATE", "cma"},
                                    {"UCX_TCP_CM_REUSEADDR", "tcp"}};
  constexpr int keep_what_is_set = 0;
  for (const auto& [name, transport] : variables)
    if (transports == "all" || transports.find(transport) != std::string_view::npos)
      setenv(name, "y", keep_what_is_set);
}

result<context> context::make(const lane_choice& lanes) {
  ucp_config_t* config = nullptr;
  auto status = ucp_config_read(nullptr, nullptr, &config);
  if (status != UCS_OK)
    return fail(to_error(status, errc::io_failure, "UCX cannot read its settings"));
  context out;
  const auto transports = choose(config, "TLS", lanes.transports);
  out.lanes_ = transports + " on " + choose(config, "NET_DEVICES", lanes.devices);
  prepare_environment(transports);
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  params.mt_workers_shared = 0;
  ucp_context_h made = nullptr;
  status = ucp_init(&params, config, &made);
  ucp_config_release(config);
  if (status != UCS_OK)
    return fail(to_error(status, errc::unsupported,
                         fmt::format("UCX does not start with lanes {}", out.lanes_)));
  out.context_.reset(made);
  return out;
}

result<worker> worker::make(const context& in, std::size_t header_bytes) {
  // Serialized: the progress thread and inline senders take turns under one mutex.
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  ucp_worker_h made = nullptr;
  auto status = ucp_worker_create(in.get(), &params, &made);
  if (status != UCS_OK)
    return fail(to_error(status, errc::io_failure, "UCX makes no worker"));
  worker out;
  out.worker_.reset(made);
  ucp_worker_attr_t attributes{};
  attributes.field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER;
  status = ucp_worker_query(made, &attributes);
  if (status != UCS_OK || attributes.max_am_header < header_bytes)
    return fail(errc::unsupported,
                fmt::format("UCX takes headers of {} bytes over {}, {} are needed: choose other "
                            "lanes, or leave UCX_*_SEG_SIZE alone",
                            attributes.max_am_header, in.lanes(), header_bytes));
  status = ucp_worker_get_efd(made, &out.descriptor_);
  if (status != UCS_OK)
    return fail(to_error(status, errc::io_failure, "UCX has no wake-up descriptor"));
  return out;
}

bool worker::arm() noexcept { return ucp_worker_arm(get()) == UCS_OK; }

} // namespace troupe::net::ucx
