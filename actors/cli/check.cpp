#include "actors/cli/commands.hpp"
#include "actors/cli/engine_options.hpp"
#include "actors/cli/local_address.hpp"
#include "troupe/actors/forecast.hpp"
#include "troupe/config/explain.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace troupe::cli {

namespace {

/// Names of nodes that do not resolve here.
void resolve_names(config::load_result& loaded) {
  if (!loaded.config)
    return;
  for (std::size_t i = 0; i < loaded.config->nodes.size(); ++i) {
    const auto& address = loaded.config->nodes[i].address;
    if (!*address)
      continue;
    if (const auto found = is_local((*address)->host); !found)
      loaded.diagnostics.push_back({.severity = config::severity::error,
                                    .code = found.error().code,
                                    .file = address.from.file,
                                    .line = address.from.line,
                                    .path = "nodes." + std::to_string(i) + ".address",
                                    .message = found.error().note});
  }
}

/// What the models will take of this machine's memory; what does not fit becomes a finding.
std::vector<actors::rank_forecast> foresee(config::load_result& loaded) {
  const auto here = [](const config::node_config& node) {
    const auto& address = *node.address;
    return !address || is_local(address->host).value_or(false);
  };
  auto told = actors::forecast_memory(*loaded.config, here);
  auto& found = loaded.diagnostics;
  for (const auto& one : told) {
    if (!one.wrong)
      continue;
    config::diagnostic wrong{.severity = config::severity::error,
                             .code = one.wrong->code,
                             .file = loaded.config->file,
                             .line = 0,
                             .path = "models." + one.model,
                             .message = one.wrong->note};
    // The ranks of a replica mostly fail alike.
    if (std::find(found.begin(), found.end(), wrong) == found.end())
      found.push_back(std::move(wrong));
  }
  return told;
}

void print(const std::vector<actors::rank_forecast>& told) {
  if (told.empty())
    return;
  std::fputs("Memory on this machine, replica by replica:\n", stdout);
  for (const auto& one : told)
    std::printf("  %s: %s\n", one.where.c_str(), one.words.c_str());
}

} // namespace

int run_check(const file_options& o) {
  auto loaded = config::check_cluster(o.file, engine_options_of(o));
  resolve_names(loaded);
  std::vector<actors::rank_forecast> told;
  if (loaded.config && !config::has_errors(loaded.diagnostics))
    told = foresee(loaded);
  const auto table = loaded.config ? config::explain(*loaded.config) : config::explanation{};
  std::fputs(config::render(table, loaded.diagnostics).c_str(), stdout);
  print(told);
  if (!config::has_errors(loaded.diagnostics) && loaded.config) {
    std::printf("\n%s is good: start it with `troupe up %s`\n", o.file.c_str(), o.file.c_str());
    return good;
  }
  std::fprintf(stderr, "troupe check: %s cannot be started before the errors above are mended\n",
               o.file.c_str());
  return failed;
}

} // namespace troupe::cli
