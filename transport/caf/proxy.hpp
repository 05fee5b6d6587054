#pragma once

#include "transport/caf/peer.hpp"

#include <caf/actor_proxy.hpp>

#include <atomic>
#include <memory>

namespace troupe::net::seam {

class host;

/// Stands for an actor of another node. Serialises in the thread of the sender.
class proxy final : public caf::actor_proxy {
public:
  proxy(caf::actor_config& config, host& at, std::shared_ptr<peer> node);

  void enqueue(caf::mailbox_element_ptr what, caf::execution_unit* ctx) override;
  bool add_backlink(caf::abstract_actor* x) override;
  bool remove_backlink(caf::abstract_actor* x) override;
  void kill_proxy(caf::execution_unit* ctx, caf::error reason) override;
  [[nodiscard]] const char* name() const override { return "troupe.proxy"; }

private:
  host& host_;
  std::shared_ptr<peer> node_;
  std::atomic<bool> dead_ = false;
};

} // namespace troupe::net::seam
