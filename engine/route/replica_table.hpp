#pragma once

#include "engine/kv/messages.hpp"
#include "troupe/base/clock.hpp"
#include "troupe/base/ids.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace troupe::engine {

/// How a router chooses among the replicas of a model.
enum class routing_policy : std::uint8_t { round_robin, least_loaded, prefix };
[[nodiscard]] std::string_view to_string(routing_policy policy) noexcept;

/// What a replica says of itself when it joins.
struct replica_facts {
  replica_id id{};
  std::string model;
  std::string node;
  /// Equal numerics of batch-invariant replicas mean equal tokens.
  std::uint64_t numerics = 0;
  bool batch_invariant = false;
  std::uint32_t block_size = 16;
  /// Which life of this replica; kv_index_report carries it too.
  std::uint64_t incarnation = 0;
};

/// What a replica last said of itself.
struct replica_load {
  std::uint32_t running = 0;
  std::uint32_t waiting = 0;
  std::uint32_t free_blocks = 0;
  std::uint32_t used_blocks = 0;
  /// Prompt tokens of the waiting requests.
  std::uint64_t waiting_tokens = 0;
};

/// The replicas that a router knows, and the choice among them. Between two load reports it keeps
/// its own account of what it has sent (optimistic accounting). Deterministic.
class replica_table {
public:
  explicit replica_table(routing_policy policy);
  ~replica_table();
  replica_table(const replica_table&) = delete;
  replica_table& operator=(const replica_table&) = delete;

  void add(replica_id replica, std::string model);
  void remove(replica_id replica);
  /// A load report replaces the account kept since the last one.
  void report(replica_id replica, const replica_load& load);
  /// A request of so many prompt tokens was sent there, or ended there.
  void sent(replica_id replica, std::uint32_t prompt_tokens);
  void ended(replica_id replica);
  /// The replica for the next request of `model`; nothing when none serves it.
  [[nodiscard]] std::optional<replica_id> choose(std::string_view model);
  /// Whether any replica of `model` was ever added.
  [[nodiscard]] bool knows(std::string_view model) const;

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace troupe::engine
