#pragma once

#include "actors/backend/custom_queue.hpp"
#include "actors/backend/library.hpp"
#include "actors/backend/library_host.hpp"
#include "actors/front_desk.hpp"
#include "actors/protocol.hpp"

#include <cstdint>
#include <memory>
#include <optional>

namespace troupe::actors {

/// One instance of a model of a backend that stands alone. `load` opens the library and initializes
/// it; `execute` serves the queue until that has nothing to give. `status` is answered, with an
/// error, when the instance is lost; `load` then waits until it is back. `reset` and `tick` are its
/// own.
using custom_instance =
    caf::typed_actor<TROUPE_ANSWERS(void, load_atom), TROUPE_ANSWERS(void, status_atom),
                     TROUPE_TAKES(execute_atom), TROUPE_TAKES(reset_atom), TROUPE_TAKES(tick_atom)>;

struct instance_options {
  std::shared_ptr<const config::triton_model> model;
  std::uint64_t version = 0;
  std::uint32_t number = 0;
  std::shared_ptr<library_host> host;
  std::shared_ptr<custom_queue> queue;
};

class instance_state {
public:
  static inline const char* name = "troupe.instance";

  explicit instance_state(custom_instance::pointer self) : self_{self} {}
  ~instance_state();
  instance_state(const instance_state&) = delete;
  instance_state& operator=(const instance_state&) = delete;

  [[nodiscard]] custom_instance::behavior_type make_behavior(instance_options options);

private:
  [[nodiscard]] caf::result<void> load();
  void serve();
  void execute(custom_batch jobs);
  [[nodiscard]] caf::result<void> watch();
  [[nodiscard]] std::string where(std::string_view function) const;

  custom_instance::pointer self_;
  instance_options options_;
  std::unique_ptr<backends::backend> backend_;
  std::string where_execute_;
  caf::response_promise lost_;
};

/// The behaviour of an instance. Spawn it detached: a library may block.
custom_instance::behavior_type run_instance(custom_instance::stateful_pointer<instance_state> self,
                                            instance_options options);

} // namespace troupe::actors
