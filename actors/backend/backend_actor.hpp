#pragma once

#include "actors/front_desk.hpp"
#include "actors/protocol.hpp"
#include "troupe/actors/backend.hpp"
#include "troupe/config/model.hpp"

#include <functional>
#include <map>
#include <memory>
#include <mutex>

namespace troupe::actors {

/// What the node says to a backend beyond what edges say. `load` runs auto_complete_config and
/// initialize and is answered when the backend can execute; `attach` names the router, a new one
/// after the router's death; `status` is answered with the number of messages that wait.
using backend_core =
    backend_actor::extend<TROUPE_TAKES(engine::token_batch), TROUPE_ANSWERS(void, load_atom),
                          TROUPE_TAKES(attach_atom, router_actor),
                          TROUPE_ANSWERS(std::uint64_t, status_atom)>;

struct backend_options {
  config::model_config model;
  std::function<std::unique_ptr<backend>()> make;
  /// What routers call the model; empty: its name.
  std::string route{};
  /// What its token streams do never blocks and takes microseconds, so that it may be done in the
  /// thread that brings the tokens.
  bool brief_streams = false;
};

class backend_state : public engine_port {
public:
  static inline const char* name = "troupe.backend";

  explicit backend_state(backend_core::pointer self) : self_{self} {}
  ~backend_state() override;
  backend_state(const backend_state&) = delete;
  backend_state& operator=(const backend_state&) = delete;

  [[nodiscard]] backend_core::behavior_type make_behavior(backend_options options);
  void submit(engine::submission request, std::shared_ptr<token_stream> stream,
              response_sink_ptr owner) override;
  void take_tokens(const engine::token_batch& batch);

private:
  struct live_stream {
    std::shared_ptr<token_stream> tokens;
    response_sink_ptr owner;
  };

  caf::result<void> initialize();
  void execute(inference_request_ptr request, response_sink_ptr sink);
  void take_accepted(const accepted& taken, live_stream stream);
  void abandon(const response_sink_ptr& owner);
  void use_router(const router_actor& router);
  void fail_all(const error& why);

  backend_core::pointer self_;
  backend_options options_;
  router_actor router_;
  std::unique_ptr<backend> backend_;
  std::map<request_id, live_stream> streams_;
  /// Submissions that the router has not answered yet, by their number; a sink may own several.
  std::map<std::uint64_t, live_stream> pending_;
  std::uint64_t submissions_ = 0;
};

/// A backend actor. Spawn it detached: tokenising and a backend's execute may block.
///
/// While it sleeps with nothing in its mailbox, a batch of few chunks is taken in the thread that
/// sends it: a thread less is woken on the way of a token to its client. The gate keeps that from
/// its own thread's work, and an empty mailbox means that nothing sent before is overtaken. Who
/// sends only tries the gate, and no stream sends its own backend tokens, so that nobody waits for
/// it but this actor's thread, for as long as a few chunks take.
class backend_host final : public backend_core::stateful_base<backend_state> {
public:
  using super = backend_core::stateful_base<backend_state>;

  backend_host(caf::actor_config& config, backend_options options);

  using super::enqueue;
  void enqueue(caf::mailbox_element_ptr what, caf::execution_unit* unit) override;
  resume_result resume(caf::execution_unit* unit, std::size_t most) override;

protected:
  behavior_type make_behavior() override;

private:
  [[nodiscard]] bool take_at_once(caf::mailbox_element& what);

  std::mutex gate_;
  backend_options options_;
  const bool brief_streams_;
};

} // namespace troupe::actors
