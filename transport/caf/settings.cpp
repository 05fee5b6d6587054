#include "transport/caf/settings.hpp"

#include <fmt/core.h>

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace troupe::net::seam {

namespace {

duration milliseconds_of(const caf::actor_system_config& cfg, const char* name, duration usual) {
  const auto usual_ms = std::chrono::duration_cast<std::chrono::milliseconds>(usual).count();
  return std::chrono::milliseconds{
      std::max<std::int64_t>(1, caf::get_or(cfg, name, std::int64_t{usual_ms}))};
}

std::uint64_t bytes_of(const caf::actor_system_config& cfg, const char* name, std::uint64_t usual) {
  return static_cast<std::uint64_t>(
      std::max<std::int64_t>(1, caf::get_or(cfg, name, static_cast<std::int64_t>(usual))));
}

/// The bytes of a file, less the line ends that editors leave behind.
result<std::vector<std::byte>> read_secret(const std::string& path) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0)
    return fail(errc::not_found, fmt::format("the secret's file {} does not exist", path));
  if ((facts.st_mode & (S_IRWXG | S_IRWXO)) != 0)
    return fail(errc::unauthorized,
                fmt::format("others may read the secret's file {}: chmod 600 {}", path, path));
  std::ifstream in{path, std::ios::binary};
  std::string text{std::istreambuf_iterator<char>{in}, {}};
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r'))
    text.pop_back();
  constexpr std::size_t secret_bytes_min = 16;
  if (text.size() < secret_bytes_min)
    return fail(errc::invalid_argument,
                fmt::format("the secret in {} has {} bytes; it needs {} at least", path,
                            text.size(), secret_bytes_min));
  const auto bytes = std::as_bytes(std::span{text});
  return std::vector<std::byte>{bytes.begin(), bytes.end()};
}

std::vector<config_part> parts_of(const caf::actor_system_config& cfg) {
  std::vector<config_part> out;
  if (const auto all = caf::get_if<caf::config_value::dictionary>(&cfg, agree_on_key))
    for (const auto& [name, hash] : *all)
      if (const auto number = caf::get_if<std::int64_t>(&hash))
        out.push_back({name, static_cast<std::uint64_t>(*number)});
  return out;
}

} // namespace

result<settings> read_settings(const caf::actor_system_config& cfg) {
  settings out;
  auto& node = out.how.node;
  node.self.name = caf::get_or(cfg, "wire.name", std::string{});
  const auto secret_file = caf::get_or(cfg, "wire.secret-file", std::string{});
  if (!secret_file.empty()) {
    auto secret = read_secret(secret_file);
    if (!secret)
      return fail(secret.error());
    node.self.secret = std::move(*secret);
  }
  const bool check_types = caf::get_or(cfg, "wire.check-types", true);
  out.types = type_table{cfg, check_types};
  if (check_types)
    node.self.types_hash = out.types.hash();
  node.self.config = parts_of(cfg);
  node.timing.heartbeat = milliseconds_of(cfg, "wire.heartbeat-ms", node.timing.heartbeat);
  node.timing.dead_after = milliseconds_of(cfg, "wire.dead-after-ms", node.timing.dead_after);
  node.timing.dial_timeout = milliseconds_of(cfg, "wire.dial-timeout-ms", node.timing.dial_timeout);
  auto& bounds = node.limits;
  bounds.queue_bytes_max = bytes_of(cfg, "wire.queue-bytes", bounds.queue_bytes_max);
  bounds.window_bytes = bytes_of(cfg, "wire.window-bytes", bounds.window_bytes);
  bounds.payload_bytes_max = bytes_of(cfg, "wire.message-bytes", bounds.payload_bytes_max);
  out.how.lanes.transports = caf::get_or(cfg, "wire.transports", out.how.lanes.transports);
  out.how.lanes.devices = caf::get_or(cfg, "wire.devices", out.how.lanes.devices);
  out.how.spin = std::chrono::microseconds{caf::get_or(cfg, "wire.spin-us", std::int64_t{50})};
  const auto when_full = caf::get_or(cfg, "wire.full-queue", std::string{"drop"});
  if (when_full != "drop" && when_full != "keep")
    return fail(errc::invalid_argument,
                fmt::format("wire.full-queue is '{}'; it may be drop or keep", when_full));
  out.keep_all = when_full == "keep";
  out.all_inline = caf::get_or(cfg, "wire.run-inline", false);
  if (node.timing.dead_after < 2 * node.timing.heartbeat)
    return fail(errc::invalid_argument,
                "wire.dead-after-ms must be at least twice wire.heartbeat-ms");
  return out;
}

} // namespace troupe::net::seam
