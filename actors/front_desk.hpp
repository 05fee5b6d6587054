#pragma once

#include "actors/model_control.hpp"
#include "engine/exec/executor.hpp"
#include "troupe/actors/inference.hpp"
#include "troupe/actors/messages.hpp"
#include "troupe/base/clock.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::inference_request_ptr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::response_sink_ptr)

CAF_ADD_ATOM(troupe_edge, troupe::actors, execute_atom, "execute")
CAF_ADD_ATOM(troupe_edge, troupe::actors, abandon_atom, "abandon")

namespace troupe::config {
struct triton_model;
}

namespace troupe::actors {

/// The front half of a model in this process, as edges use it. `execute` runs the backend's
/// life-cycle function of that name; every outcome, errors included, arrives at the sink. `abandon`
/// ends the request of that sink because its client went away; nothing more is sent to the sink.
using backend_actor =
    caf::typed_actor<TROUPE_TAKES(execute_atom, inference_request_ptr, response_sink_ptr),
                     TROUPE_TAKES(abandon_atom, response_sink_ptr)>;

/// One model as the edges of this process see it.
struct model_entry {
  std::string name;
  /// The directory below the model's that was loaded.
  std::uint64_t version = 1;
  /// Of the versions of one name the one that a request without a version gets: the highest that is
  /// ready, or else the highest.
  bool chosen = true;
  /// The names under which clients ask for it; the first is the one that answers carry.
  std::vector<std::string> served_names;
  backend_actor backend;
  /// Where requests may go instead, of a backend that takes them without a message; or nothing.
  std::shared_ptr<request_door> door{};
  /// Unix time of loading, for /v1/models.
  std::int64_t created = 0;
  std::uint32_t max_model_len = 0;
  /// "loading", "ready", "failed", "restarting", "unloading".
  std::string state;
  /// With "failed": why.
  std::string note;
  /// What the protocols say of it: the completed config.pbtxt.
  std::shared_ptr<const config::triton_model> triton{};
  /// Of the replica that was loaded last.
  engine::executor_description description;
  std::chrono::milliseconds loading{0};
  /// What routers call it: versions and generations of one model are apart.
  std::string route{};
  /// Whoever may still send the backend a request, or waits for an answer, holds a copy: a model
  /// that is unloaded ends when none is left.
  std::shared_ptr<const void> lease{};
};

/// What edges know of the cluster: an immutable snapshot that the node actor replaces and any
/// thread reads.
struct front_view {
  std::vector<model_entry> models;
  std::vector<unloaded_model> unloaded;
  /// The router of this process; another one after its death.
  router_actor router;
  cluster_status status;
  bool draining = false;
  /// The node has spoken: what is not here is not to come.
  bool complete = false;
};

/// The board between the actors of a process and its edges. Thread-safe.
class front_desk {
public:
  [[nodiscard]] std::shared_ptr<const front_view> view() const;
  void publish(std::shared_ptr<const front_view> next);

  /// Remembers that a step was completed or that every replica was idle and answered; for /ready.
  void mark_progress(time_point now) noexcept;
  /// True when all models that are not being unloaded are ready, nothing drains and progress was
  /// seen within `window`.
  [[nodiscard]] bool ready(time_point now, duration window) const;

  /// Set once, before edges ask; none means that models stay as they were at the start.
  void set_control(std::shared_ptr<const model_control> control);
  [[nodiscard]] std::shared_ptr<const model_control> control() const;
  /// The names of the models in the repository, loaded or not; empty where nobody looks.
  void set_repository(std::vector<std::string> names);
  [[nodiscard]] std::shared_ptr<const std::vector<std::string>> repository() const;

  /// Counts an answer as being worked on for as long as the token lives; a drain waits for all.
  [[nodiscard]] std::shared_ptr<void> open_answer();
  [[nodiscard]] std::uint64_t answers_open() const noexcept { return *answers_; }

private:
  mutable std::mutex mutex_;
  std::shared_ptr<std::atomic<std::uint64_t>> answers_ =
      std::make_shared<std::atomic<std::uint64_t>>(0);
  std::shared_ptr<const model_control> control_;
  std::shared_ptr<const std::vector<std::string>> repository_ =
      std::make_shared<const std::vector<std::string>>();
  std::shared_ptr<const front_view> view_ = std::make_shared<front_view>();
  std::atomic<time_point::rep> progress_{0};
};

/// The model that answers to `name`, or none; of its versions the chosen one.
[[nodiscard]] const model_entry* find_model(const front_view& view, std::string_view name);

} // namespace troupe::actors
