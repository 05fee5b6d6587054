#pragma once

#include "transport/caf/host.hpp"

#include <caf/attachable.hpp>

#include <memory>
#include <utility>

namespace troupe::net::seam {

/// Attached to a local actor that a node has a proxy of: tells the node how the actor ended. Taken
/// off again when the node goes, so that guests who come and go leave nothing behind.
class watch final : public caf::attachable {
public:
  watch(host& at, std::shared_ptr<peer> by, caf::actor_id actor)
      : host_{at}, by_{std::move(by)}, actor_{actor} {}

  [[nodiscard]] static token token_of(const peer& by) { return {kind, &by}; }

  void actor_exited(const caf::error& reason, caf::execution_unit* /*ctx*/) override {
    host_.tell_down(*by_, actor_, reason);
  }
  bool matches(const token& what) override { return what.subtype == kind && what.ptr == by_.get(); }

private:
  /// A number that CAF's own attachables do not use.
  static constexpr std::size_t kind = 7600;

  host& host_;
  std::shared_ptr<peer> by_;
  caf::actor_id actor_;
};

} // namespace troupe::net::seam
