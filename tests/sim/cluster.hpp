#pragma once

#include "tests/sim/front.hpp"
#include "tests/sim/stage.hpp"

#include <memory>
#include <vector>

namespace troupe::sim {

/// What a run came to.
struct outcome {
  /// Empty when every promise was kept.
  std::string broken;
  std::uint64_t digest = 0;
  std::uint64_t events = 0;
  duration took{};
  tally clients;
  std::uint64_t preemptions = 0;
  std::uint64_t blocks_restored = 0;
  /// Pairs that gave each other up and met again as they were.
  std::uint64_t forgiven = 0;
  std::uint64_t faults = 0;
  /// Requests that ended with everything that the router knew of the prefix caches being right.
  std::uint64_t matched_tokens = 0;
  std::vector<std::string> last;
};

/// A whole cluster in one thread and in virtual time: fronts, stages, network, clients and faults,
/// all decided by one seed.
class cluster {
public:
  cluster(std::uint64_t seed, sabotage planted, trace::level how);

  /// Runs to rest. Throws broken_promise.
  void run();
  [[nodiscard]] outcome report() const;

private:
  /// A node and the process on it, if any.
  template <class Process>
  struct place {
    node_index at{};
    std::unique_ptr<Process> who;
    /// It comes back by itself.
    bool returning = false;
  };

  void build();
  void start_front(std::size_t which);
  void start_stage(std::size_t which);
  void end_process(node_index at);
  /// Adds up what a stage did, once: at its end or at the run's.
  void count(const stage& one);
  void come_back(node_index at, duration after);
  void fenced(node_index a, node_index b);
  [[nodiscard]] bool is_front(node_index at) const;

  void plan_requests();
  void plan_faults();
  void ask(bool probe);
  [[nodiscard]] record draw_request();
  [[nodiscard]] std::vector<token_id> draw_prompt();
  void strike(const fault_plan& what);
  void stop(node_index at, duration lasts);
  void go_on(node_index at);
  void cut(const fault_plan& what);
  [[nodiscard]] front* any_front(std::uint64_t draw);
  [[nodiscard]] std::size_t any_stage(std::uint64_t draw) const;

  void run_until(time_point when);
  void end_faults();
  void come_to_rest(const char* what);
  void ask_probes();
  [[nodiscard]] bool at_rest() const;
  void check_indexes();
  void check_home();

  world_plan plan_;
  timeline time_;
  trace log_;
  splitmix64 random_;
  network net_;
  book clients_;
  surroundings around_;
  std::vector<place<front>> fronts_;
  std::vector<place<stage>> stages_;
  std::vector<std::unique_ptr<process>> graveyard_;
  std::uint32_t last_hub_ = 0;
  /// Nodes that were declared dead and have not ended or taken a fresh id yet.
  std::uint32_t fences_due_ = 0;
  std::uint64_t faults_ = 0;
  std::uint64_t preemptions_ = 0;
  std::uint64_t blocks_restored_ = 0;
  std::uint64_t forgiven_ = 0;
  std::uint64_t matched_tokens_ = 0;
};

/// Runs one seed and says how it went. The same seed and sabotage give the same digest.
[[nodiscard]] outcome run_seed(std::uint64_t seed, sabotage planted, trace::level how);

} // namespace troupe::sim
