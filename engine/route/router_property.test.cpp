#include "engine/route/router.hpp"

#include "engine/route/test_requests.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::engine::test;
using namespace std::chrono_literals;

namespace {

/// Replicas that answer with a function of the prompt and the position, die, come back, refuse and
/// dawdle; a wire that keeps order in each direction of each pair and delays at will.
class rough_cluster {
public:
  explicit rough_cluster(std::uint64_t seed)
      : random_{seed}, core_{{.hub = hub_id{1},
                              .policy = static_cast<routing_policy>(random_.below(3)),
                              .max_streams = 40,
                              .deaths_max = 1000}} {
    for (std::uint32_t i = 0; i < 4; ++i)
      rise(replica_id{i});
  }

  void step(bool faults) {
    now_ += std::chrono::milliseconds{random_.below(30)};
    const auto dice = random_.below(100);
    const replica_id any{static_cast<std::uint32_t>(random_.below(4))};
    if (dice < 15)
      submit();
    else if (dice < 17 && !open_.empty())
      cancel();
    else if (dice < 20 && faults)
      fall(any);
    else if (dice < 24 && !lives_[any].up)
      rise(any);
    else if (dice < 60)
      serve(any);
    else
      carry(any);
    core_.expire(now_);
    act();
  }

  void settle() {
    for (std::uint32_t i = 0; i < 4; ++i)
      if (!lives_[replica_id{i}].up)
        rise(replica_id{i});
    for (int i = 0; i < 30'000 && !open_.empty(); ++i) {
      now_ += 5ms;
      const replica_id any{static_cast<std::uint32_t>(random_.below(4))};
      random_.below(2) == 0 ? serve(any) : carry(any);
      core_.expire(now_);
      act();
    }
    REQUIRE(open_.empty());
    REQUIRE(core_.stats().hub.open == 0);
    REQUIRE(core_.stats().parked == 0);
  }

  std::uint64_t completed = 0;
  std::uint64_t refused = 0;
  [[nodiscard]] router_stats stats() const { return core_.stats(); }

private:
  struct job {
    submission request;
    std::uint32_t next = 0;
  };
  struct life {
    bool up = false;
    std::uint64_t incarnation = 0;
    std::map<request_id, job> jobs;
    /// What the replica has sent and the router has not received.
    std::deque<std::function<void()>> mail;
  };
  struct watched {
    submission request;
    std::vector<token_id> seen;
    bool answered = false;
  };

  static token_id truth(const submission& request, std::size_t position) {
    return static_cast<token_id>(request.prompt[0] * 31 + static_cast<token_id>(position));
  }

  void submit() {
    auto request = a_request();
    request.prompt.assign(1 + random_.below(40), static_cast<token_id>(random_.below(9)));
    request.sampling.max_tokens = static_cast<std::uint32_t>(1 + random_.below(12));
    if (const auto id = core_.submit(request, now_))
      open_[*id].request = request;
  }

  void cancel() {
    auto victim = open_.begin();
    std::advance(victim, static_cast<std::ptrdiff_t>(random_.below(open_.size())));
    core_.cancel(victim->first, now_);
  }

  void rise(replica_id id) {
    auto& its = lives_[id];
    its = {.up = true, .incarnation = its.incarnation + 1, .jobs = {}, .mail = {}};
    auto known = facts(value(id), value(id) % 2);
    known.incarnation = its.incarnation;
    core_.replica_up(known, now_);
  }

  /// Dead for the router; whether it really is, only the replica knows: its mail may still come.
  void fall(replica_id id) {
    auto& its = lives_[id];
    its.up = false;
    if (random_.below(2) == 0)
      its.jobs.clear();
    core_.replica_down(id, gone, random_.below(4) == 0 ? end_cause::draining : end_cause::died,
                       now_);
  }

  void serve(replica_id id) {
    auto& its = lives_[id];
    token_batch batch{.replica = id, .chunks = {}};
    for (auto& [request, job] : its.jobs)
      batch.chunks.push_back(next_chunk(job));
    std::erase_if(its.jobs, [](const auto& entry) {
      return entry.second.next >= entry.second.request.sampling.max_tokens;
    });
    its.mail.push_back([this, batch] { core_.tokens(batch, now_); });
  }

  token_chunk next_chunk(job& job) {
    token_chunk chunk{.request = job.request.id,
                      .stream = job.request.sink.stream,
                      .attempt = job.request.attempt,
                      .offset = job.next,
                      .ids = {truth(job.request, job.next)},
                      .note = ""};
    if (++job.next == job.request.sampling.max_tokens)
      chunk.finish = finish_reason::length;
    return chunk;
  }

  void carry(replica_id id) {
    auto& mail = lives_[id].mail;
    if (mail.empty())
      return;
    const auto message = std::move(mail.front());
    mail.pop_front();
    message();
  }

  void act() {
    auto actions = core_.take_actions();
    for (const auto& cancel : actions.cancels)
      drop(cancel);
    for (auto& dispatch : actions.dispatches)
      take(dispatch);
    for (const auto& verdict : actions.verdicts)
      note(verdict);
    for (const auto& chunk : actions.deliveries)
      note(chunk);
  }

  void drop(const router_actions::cancel& cancel) {
    auto& its = lives_[cancel.replica];
    const auto job = its.jobs.find(cancel.id);
    if (job == its.jobs.end())
      return;
    auto last = next_chunk(job->second);
    last.ids.clear();
    last.finish = finish_reason::abort;
    its.jobs.erase(job);
    its.mail.push_back([this, last, id = cancel.replica] { core_.tokens({id, {last}}, now_); });
  }

  void take(router_actions::dispatch& dispatch) {
    auto& its = lives_[dispatch.replica];
    REQUIRE(its.up);
    const auto id = dispatch.request.id;
    const auto attempt = dispatch.request.attempt;
    REQUIRE(dispatch.request.delivered == open_.at(id).seen);
    if (random_.below(8) == 0) {
      its.mail.push_back([this, id, attempt, at = dispatch.replica] {
        core_.rejected(id, at, attempt, {errc::busy, "full"}, now_);
      });
      return;
    }
    const auto next = static_cast<std::uint32_t>(dispatch.request.delivered.size());
    its.jobs[id] = {std::move(dispatch.request), next};
    its.mail.push_back(
        [this, id, attempt, at = dispatch.replica] { core_.accepted(id, at, attempt, now_); });
  }

  void note(const router_actions::verdict& verdict) {
    auto& stream = open_.at(verdict.id);
    REQUIRE_FALSE(stream.answered);
    stream.answered = true;
    if (verdict.outcome)
      return;
    open_.erase(verdict.id);
    ++refused;
  }

  void note(const token_chunk& chunk) {
    auto& stream = open_.at(chunk.request);
    REQUIRE(stream.answered);
    for (const auto token : chunk.ids) {
      REQUIRE(token == truth(stream.request, stream.seen.size()));
      stream.seen.push_back(token);
    }
    if (chunk.finish == finish_reason::none)
      return;
    REQUIRE(chunk.finish != finish_reason::error);
    if (chunk.finish == finish_reason::length)
      REQUIRE(stream.seen.size() == stream.request.sampling.max_tokens);
    open_.erase(chunk.request);
    ++completed;
  }

  splitmix64 random_;
  time_point now_ = start;
  router core_;
  std::map<replica_id, life> lives_;
  std::map<request_id, watched> open_;
};

} // namespace

TEST_CASE("whatever replicas do, each stream ends once with its own tokens",
          "[route][router][property]") {
  std::uint64_t completed = 0;
  std::uint64_t migrations = 0;
  for (std::uint64_t seed = 1; seed <= 80; ++seed) {
    INFO("seed " << seed);
    rough_cluster cluster{seed};
    for (int i = 0; i < 1500; ++i)
      cluster.step(true);
    cluster.settle();
    completed += cluster.completed;
    migrations += cluster.stats().migrations_exact + cluster.stats().migrations_inexact;
  }
  CHECK(completed > 5000);
  CHECK(migrations > 1000);
}
