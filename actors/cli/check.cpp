#include "actors/cli/commands.hpp"
#include "actors/cli/config_file.hpp"
#include "troupe/actors/architectures.hpp"
#include "troupe/config/explain.hpp"

#include <cstdio>

namespace troupe::cli {

int run_check(const file_options& o) {
  auto options = load_options_of(o);
  options.capabilities.architectures = actors::served_architectures();
  const auto loaded = config::check_cluster(o.file, options);
  const auto table = loaded.config ? config::explain(*loaded.config) : config::explanation{};
  std::fputs(config::render(table, loaded.diagnostics).c_str(), stdout);
  if (!config::has_errors(loaded.diagnostics) && loaded.config) {
    std::printf("\n%s is good: start it with `troupe up %s`\n", o.file.c_str(), o.file.c_str());
    return good;
  }
  std::fprintf(stderr, "troupe check: %s cannot be started before the errors above are mended\n",
               o.file.c_str());
  return failed;
}

} // namespace troupe::cli
