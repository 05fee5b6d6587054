#include "transport/caf/proxy.hpp"

#include "transport/caf/host.hpp"

#include <utility>

namespace troupe::net::seam {

proxy::proxy(caf::actor_config& config, host& at, std::shared_ptr<peer> node)
    : caf::actor_proxy{config}, host_{at}, node_{std::move(node)} {}

void proxy::enqueue(caf::mailbox_element_ptr what, caf::execution_unit*) {
  if (what == nullptr)
    return;
  const auto& content = what->content();
  // A link ends with the exit that it sends.
  if (content.match_elements<caf::exit_msg>())
    unlink_from(content.get_as<caf::exit_msg>(0).source);
  const outgoing out{.from = what->sender,
                     .stages = &what->stages,
                     .to = id(),
                     .id = what->mid,
                     .content = &content};
  if (dead_)
    host_.bounce(out, caf::make_error(caf::exit_reason::remote_link_unreachable));
  else
    host_.send(*node_, out);
}

// CAF holds the mutexes of both actors here, and what is to be sent needs them: it is sent later.
bool proxy::add_backlink(caf::abstract_actor* x) {
  if (!caf::actor_proxy::add_backlink(x))
    return false;
  host_.link_later(node_, verb::link, caf::strong_actor_ptr{x->ctrl()}, id());
  return true;
}

bool proxy::remove_backlink(caf::abstract_actor* x) {
  if (!caf::actor_proxy::remove_backlink(x))
    return false;
  host_.link_later(node_, verb::unlink, caf::strong_actor_ptr{x->ctrl()}, id());
  return true;
}

void proxy::kill_proxy(caf::execution_unit* ctx, caf::error reason) {
  dead_ = true;
  cleanup(std::move(reason), ctx);
}

} // namespace troupe::net::seam
