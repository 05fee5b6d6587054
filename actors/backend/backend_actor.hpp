#pragma once

#include "actors/front_desk.hpp"
#include "actors/protocol.hpp"
#include "troupe/actors/backend.hpp"
#include "troupe/config/model.hpp"

#include <functional>
#include <map>
#include <memory>

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

private:
  struct live_stream {
    std::shared_ptr<token_stream> tokens;
    response_sink_ptr owner;
  };

  caf::result<void> initialize();
  void execute(inference_request_ptr request, response_sink_ptr sink);
  void take_accepted(const accepted& taken, live_stream stream);
  void take_tokens(const engine::token_batch& batch);
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

/// The behaviour of a backend actor. Spawn it detached: tokenising and a backend's execute may
/// block.
backend_core::behavior_type run_backend(backend_core::stateful_pointer<backend_state> self,
                                        backend_options options);

} // namespace troupe::actors
