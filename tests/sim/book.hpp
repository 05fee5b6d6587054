#pragma once

#include "engine/route/router.hpp"
#include "engine/sched/promise.test.hpp"
#include "engine/sched/toy_model.test.hpp"
#include "tests/sim/trace.hpp"

#include <map>
#include <optional>
#include <vector>

namespace troupe::sim {

/// What one client asked for, what it was told, and what may excuse an end that it did not want.
struct record {
  engine::submission asked;
  time_point at{};
  std::optional<time_point> deadline;
  /// Kills whatever replica computes it.
  bool poison = false;
  /// Asked when the cluster is at rest: nothing excuses anything.
  bool probe = false;
  bool cancelled = false;
  bool row_failed = false;
  bool step_failed = false;

  bool answered = false;
  bool ended = false;
  /// The front died under it: the client's connection is gone, and nothing more is to be said.
  bool abandoned = false;
  engine::finish_reason finish = engine::finish_reason::none;
  errc why = errc::none;

  std::vector<token_id> seen;
  std::uint64_t history = 0;
  std::uint32_t attempt = 0;
  /// The replica that the router has sent it to, and its numerics; nothing while it looks for one.
  std::optional<replica_id> replica;
  std::uint64_t numerics = 0;
  bool batch_invariant = true;
  /// That replica has said that it took it, or has sent chunks.
  bool accepted = false;
  /// Deaths of replicas under it since its last token, in halves: one that had not accepted it is
  /// half a death.
  std::uint32_t half_deaths = 0;
  /// Since when no replica has it, after one had.
  std::optional<time_point> lost_at;
};

/// What happened in all runs of a book, to see that the storm reaches what it is meant to reach.
struct tally {
  std::uint64_t requests = 0;
  std::uint64_t whole = 0;
  std::uint64_t refused = 0;
  std::uint64_t aborted = 0;
  std::uint64_t errors = 0;
  std::uint64_t abandoned = 0;
  std::uint64_t resumed = 0;
  std::uint64_t resumed_midway = 0;
  std::uint64_t poisoned = 0;
  std::uint64_t timed_out = 0;
  std::uint64_t tokens = 0;
  std::uint64_t cached_tokens = 0;
  std::uint64_t inexact = 0;
};

void add(tally& sum, const tally& other);

/// The clients' side of all requests. Checks that each gets exactly one end, that its tokens are
/// the model's, none lost and none twice, that a resumed request is whole, and that no end is worse
/// than what happened excuses.
class book {
public:
  struct options {
    token_id vocab = 0;
    std::uint32_t max_model_len = 0;
    std::uint32_t deaths_max = 0;
    duration resume_limit{};
  };

  book(const options& how, trace& log) : options_{how}, log_{log} {}

  /// A router took the request, under the id that `asked` has.
  void opened(record fresh);
  void dispatched(const engine::submission& sent, const engine::replica_facts& to, time_point now);
  /// The replica did not take this attempt.
  void accepted(request_id id, replica_id replica, std::uint32_t attempt);
  void rejected(request_id id, std::uint32_t attempt);
  void verdict(request_id id, const result<replica_id>& outcome, time_point now);
  void delivered(const engine::token_chunk& chunk, time_point now);
  /// The router hears that a replica is gone.
  void replica_lost(hub_id hub, replica_id replica, bool died, time_point now);
  /// After the router's answer to that: what should be refused by now is.
  void check_refused(hub_id hub) const;
  void cancelled(request_id id);
  /// The client is gone and hears nothing more.
  void forgotten(request_id id);
  void row_failed(request_id id);
  void step_failed(request_id id);
  /// A front ends everything that it has, with `abort`.
  void front_cuts(hub_id hub);
  void front_gone(hub_id hub);
  /// A front that stood still, and could end nothing in that time, goes on.
  void front_wakes(hub_id hub, time_point now);

  [[nodiscard]] std::uint32_t attempt_of(request_id id) const;
  [[nodiscard]] bool is_poison(request_id id) const;
  /// Requests without an end.
  [[nodiscard]] std::vector<request_id> open() const;
  [[nodiscard]] std::size_t open_count() const { return open_; }
  [[nodiscard]] bool is_open(request_id id) const;
  /// Requests without an end, of one front.
  [[nodiscard]] std::vector<request_id> open_of(hub_id hub) const;
  [[nodiscard]] const tally& counts() const { return tally_; }
  [[nodiscard]] tally& counts() { return tally_; }

private:
  [[nodiscard]] record& at(request_id id);
  void check_tokens(record& of, const engine::token_chunk& chunk);
  void check_end(const record& of, const engine::token_chunk& chunk, time_point now);
  void check_excuse(const record& of, errc why, time_point now) const;
  void end(record& of, engine::finish_reason finish, errc why);

  options options_;
  trace& log_;
  std::map<request_id, record> records_;
  std::map<hub_id, bool> cut_;
  std::map<hub_id, time_point> woke_;
  std::size_t open_ = 0;
  tally tally_;
};

/// The front that gave a request its id.
[[nodiscard]] constexpr hub_id hub_of(request_id id) {
  return hub_id{static_cast<std::uint32_t>(value(id) >> 40)};
}

} // namespace troupe::sim
