#include "actors/cli/config_file.hpp"

#include <fmt/core.h>

namespace troupe::cli {

namespace {

/// The one variable that is for clients and not for the cluster file.
constexpr auto api_key_variable = "TROUPE_API_KEY";

} // namespace

config::load_options load_options_of(const file_options& o) {
  config::load_options made;
  made.set = o.set;
  if (o.port)
    made.set.push_back(fmt::format("edges.http.port={}", *o.port));
  if (!o.log_level.empty())
    made.set.push_back("log_level=" + o.log_level);
  if (!o.backend_directory.empty())
    made.set.push_back("backend_directory=" +
                       std::filesystem::absolute(o.backend_directory).string());
  made.environment = config::process_environment();
  made.environment.erase(api_key_variable);
  made.capabilities.grpc = TROUPE_HAS_GRPC != 0;
  return made;
}

std::string environment_api_key() {
  const auto all = config::process_environment();
  const auto found = all.find(api_key_variable);
  return found == all.end() ? std::string{} : found->second;
}

} // namespace troupe::cli
