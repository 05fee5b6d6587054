#include "engine/text/jinja/loop.hpp"

#include <fmt/format.h>

namespace troupe::engine::jinja {

result<value> loop_state::attribute(runtime&, const value& self, std::string_view name) const {
  const auto number = [](std::size_t n) { return make_int(static_cast<std::int64_t>(n)); };
  const auto& all = items->items;
  const std::size_t count = all.size();
  if (name == "index")
    return number(at + 1);
  if (name == "index0")
    return number(at);
  if (name == "first")
    return make_bool(at == 0);
  if (name == "last")
    return make_bool(at + 1 >= count);
  if (name == "length")
    return number(count);
  if (name == "revindex")
    return make_int(static_cast<std::int64_t>(count) - static_cast<std::int64_t>(at));
  if (name == "revindex0")
    return make_int(static_cast<std::int64_t>(count) - static_cast<std::int64_t>(at) - 1);
  // Only recursive loops, which are not supported, count as deeper than one.
  if (name == "depth" || name == "depth0")
    return number(name == "depth" ? 1 : 0);
  if (name == "previtem")
    return at > 0 && at <= count ? all[at - 1] : make_undefined("there is no previous item");
  if (name == "nextitem")
    return at + 1 < count ? all[at + 1] : make_undefined("there is no next item");
  if (const auto* row = find_method(self, name))
    return value{std::make_shared<const method_node>(method_node{self, row})};
  return make_undefined(fmt::format("loop has no attribute '{}'", name));
}

} // namespace troupe::engine::jinja
