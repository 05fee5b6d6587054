#pragma once

#include "engine/route/cache_view.hpp"
#include "engine/route/prompt_hashes.hpp"
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

  friend bool operator==(const replica_facts&, const replica_facts&) = default;
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

/// What the choice of a replica depends on.
struct placement {
  std::string_view model;
  /// Of prompt and delivered tokens; only the policy `prefix` looks at more than their number.
  prompt_hashes& hashes;
  /// Replicas that refused it already.
  std::span<const replica_id> except;
  /// A stream that has tokens goes on at a replica of these numerics if there is one.
  std::optional<std::uint64_t> numerics;
};

struct chosen_replica {
  replica_id id{};
  /// Leading tokens that are taken to be cached there.
  std::uint64_t cached_tokens = 0;
};

/// The replicas that a router knows, and the choice among them. Between two load reports it keeps
/// its own account of what it has sent (optimistic accounting). Deterministic.
class replica_table {
public:
  struct options {
    routing_policy policy = routing_policy::least_loaded;
    cache_view::options cache;
  };
  explicit replica_table(options how);
  ~replica_table();
  replica_table(const replica_table&) = delete;
  replica_table& operator=(const replica_table&) = delete;

  void add(replica_facts facts, time_point now);
  void remove(replica_id replica);
  /// Nothing more is sent there.
  void set_draining(replica_id replica);
  /// A load report replaces the account kept since the last one.
  void report(replica_id replica, const replica_load& load);
  /// What the last choice stands for was sent there, or a request ended there.
  void sent(const placement& what, const chosen_replica& where, time_point now);
  void ended(replica_id replica);
  /// The replica for a request; nothing when none can take it.
  /// @cost with policy `prefix` one look-up of the hashes in the index for all replicas
  [[nodiscard]] std::optional<chosen_replica> choose(const placement& what, time_point now);
  /// What a replica said of itself; null when it is not here.
  [[nodiscard]] const replica_facts* facts(replica_id replica) const;
  /// Whether any replica of `model` was ever added.
  [[nodiscard]] bool knows(std::string_view model) const;
  /// What the replicas hold; null unless the policy wants to know.
  [[nodiscard]] cache_view* cache() noexcept;

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace troupe::engine
