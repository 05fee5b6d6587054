#pragma once

#include "troupe/actors/cluster.hpp"
#include "troupe/actors/messages.hpp"
#include "troupe/config/load.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace troupe::testing {

/// A folder that is removed with the object.
class temporary_folder {
public:
  temporary_folder();
  ~temporary_folder();
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

private:
  std::filesystem::path path_;
};

/// One request for token ids and what came of it.
struct outcome {
  std::optional<error> refused;
  std::vector<token_id> tokens;
  engine::finish_reason finish = engine::finish_reason::none;
  std::uint32_t cached_tokens = 0;
  std::string note;
};

/// A cluster of one process inside the test: an actor system, a model repository written to a
/// temporary folder, and the real cast.
class running_cluster {
public:
  struct options {
    /// The Hugging Face folder, relative to the source tree.
    std::string model_dir = "examples/models/bard/hf";
    /// Further keys of model.json, as JSON members: "\"max_num_seqs\": 2".
    std::string engine_keys;
    /// Further members of cluster.json.
    std::string cluster_keys;
    std::string executor = "cpu";
  };

  explicit running_cluster(options what);
  ~running_cluster();
  running_cluster(const running_cluster&) = delete;
  running_cluster& operator=(const running_cluster&) = delete;

  /// Submits all requests at once and waits for the end of each, in order.
  [[nodiscard]] std::vector<outcome> run(std::vector<engine::submission> requests);
  [[nodiscard]] outcome run_one(engine::submission request);

  [[nodiscard]] actors::cluster& cluster() { return *cluster_; }
  [[nodiscard]] caf::actor_system& system() { return *system_; }
  [[nodiscard]] actors::cluster_status status();

private:
  struct host_config;
  temporary_folder folder_;
  std::unique_ptr<host_config> host_;
  std::unique_ptr<caf::actor_system> system_;
  std::optional<actors::cluster> cluster_;
};

/// A submission for the model of a running_cluster.
[[nodiscard]] engine::submission request_for(std::vector<token_id> prompt,
                                             engine::sampling_params sampling);

} // namespace troupe::testing
