// What an executor does that does not do it otherwise. Linked wherever there is an executor.
#include "engine/exec/executor.hpp"

namespace troupe::engine {

result<memory_forecast> executor::foresee(std::uint64_t) {
  return fail(errc::unsupported, "this executor does not tell what memory it needs");
}

} // namespace troupe::engine
