// The table of executors that are linked in.
#include "engine/exec/executor.hpp"

#include "engine/exec/cpu_executor.hpp"
#include "engine/exec/simulated.hpp"

#include <fmt/format.h>

#include <array>
#include <vector>

namespace troupe::engine {

namespace {

struct executor_kind {
  std::string_view name;
  std::unique_ptr<executor> (*make)(executor_options options);
};

template <class T>
std::unique_ptr<executor> make(executor_options options) {
  return std::make_unique<T>(std::move(options));
}

constexpr std::array<executor_kind, 2> kinds{{
    {"cpu", make<cpu_executor>},
    {"simulated", make<simulated_executor>},
}};

} // namespace

result<std::unique_ptr<executor>> make_executor(std::string_view kind, executor_options options) {
  std::vector<std::string_view> names;
  for (const executor_kind& one : kinds) {
    if (one.name == kind)
      return one.make(std::move(options));
    names.push_back(one.name);
  }
  return fail(errc::not_found, fmt::format("there is no executor '{}'; these are: {}", kind,
                                           fmt::join(names, ", ")));
}

} // namespace troupe::engine
