#pragma once

#include "engine/text/jinja/builtin.hpp"

namespace troupe::engine::jinja {

/// The variable `loop`. It belongs to the rendering and may be used after its loop has ended.
struct loop_state : object {
  list_ptr items;
  std::size_t at = 0;
  std::optional<value> last_changed; ///< What loop.changed() saw last.

  loop_state() : object(object_kind::loop) {}

  /// loop.index and kin; the methods cycle and changed are bound to `self`.
  [[nodiscard]] result<value> attribute(runtime& rt, const value& self,
                                        std::string_view name) const;
};

} // namespace troupe::engine::jinja
