#pragma once

#include "tests/sim/messages.hpp"
#include "tests/sim/timeline.hpp"
#include "tests/sim/trace.hpp"
#include "troupe/base/prng.hpp"

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace troupe::sim {

/// A place in the network; processes come and go there.
enum class node_index : std::uint32_t {};

/// What runs on a node. Called in virtual time, never while the process stands still.
class process {
public:
  virtual ~process() = default;
  virtual void peer_up(node_index peer) = 0;
  /// The peer's messages are over; whether it lives nobody knows.
  virtual void peer_down(node_index peer) = 0;
  virtual void receive(node_index from, message what) = 0;
};

/// Nodes and the connections between them, as the transport promises them: messages of a connection
/// arrive in order or not at all, both ends learn of its end, each in its own time, and two
/// processes of which one declared the other dead never talk again under the same node ids, unless
/// they forgive each other.
class network {
public:
  using job = timeline::job;

  struct options {
    duration delay_min = std::chrono::microseconds{20};
    duration delay_max = std::chrono::microseconds{400};
    /// Silence after which a peer is declared dead, and how much later that may be noticed.
    duration dead_after = std::chrono::seconds{1};
    duration dead_late = std::chrono::milliseconds{250};
    /// Within this the end of a process is noticed by its peers.
    duration broken_after = std::chrono::milliseconds{50};
  };

  network(timeline& time, trace& log, std::uint64_t seed, const options& how)
      : time_{time}, log_{log}, random_{seed}, options_{how} {}

  /// Called when two processes that live have fenced each other: one has to start anew.
  std::function<void(node_index, node_index)> on_fenced;

  [[nodiscard]] node_index add(std::string name);
  /// From here on the two connect whenever they can.
  void introduce(node_index a, node_index b);
  void start(node_index at, process& who);
  /// The process ends; what it had sent may still arrive.
  void kill(node_index at);
  /// The process stands still, its connections stay until somebody's patience ends.
  void stop(node_index at);
  void go_on(node_index at);
  /// Two processes that fenced each other meet again as they are.
  void forgive(node_index a, node_index b);
  /// Nothing passes between the two; what is under way waits.
  void cut(node_index a, node_index b);
  void heal(node_index a, node_index b);

  void send(node_index from, node_index to, message what);
  /// Runs `what` in the process of the node, unless that has ended by then; one that stands still
  /// does it when it goes on.
  void run_in(node_index at, duration time, job what);

  [[nodiscard]] bool alive(node_index at) const { return node_of(at).who != nullptr; }
  [[nodiscard]] bool stopped(node_index at) const { return node_of(at).stopped; }
  /// Counts the processes of a node.
  [[nodiscard]] std::uint64_t life(node_index at) const { return node_of(at).life; }
  [[nodiscard]] const std::string& name(node_index at) const { return node_of(at).name; }
  /// Whether both ends of all connections that can be there are up.
  [[nodiscard]] bool all_connected() const;

private:
  struct node {
    std::string name;
    process* who = nullptr;
    std::uint64_t life = 0;
    /// The node id of the transport.
    std::uint64_t id = 0;
    bool stopped = false;
    std::uint64_t stops = 0;
    std::deque<job> backlog;
  };

  /// A pair of nodes, the lower index first.
  struct link {
    std::array<node_index, 2> ends{};
    std::uint64_t session = 0;
    /// The node ids that it is between.
    std::array<std::uint64_t, 2> ids{};
    /// Whether the end still takes part in the session.
    std::array<bool, 2> open{};
    /// Messages of each end that are under way.
    std::array<std::deque<std::pair<time_point, message>>, 2> under_way;
    std::array<time_point, 2> last_arrival{};
    /// The node ids that never talk to each other again.
    std::array<std::uint64_t, 2> fenced{};
    /// 0: not cut.
    std::uint64_t cut = 0;
    bool dialling = false;
    bool fence_reported = false;
  };

  [[nodiscard]] node& node_of(node_index at) { return nodes_.at(value(at)); }
  [[nodiscard]] const node& node_of(node_index at) const { return nodes_.at(value(at)); }
  [[nodiscard]] link& between(node_index a, node_index b);
  [[nodiscard]] duration pick(duration from, duration to);
  void enqueue(link& on, std::size_t side, message what);
  void arrive(link& on, std::size_t side, std::uint64_t session);
  /// The end `side` gives the session up when it gets to it.
  void close_later(link& on, std::size_t side, duration time, bool fence);
  void close(link& on, std::size_t side, bool fence);
  void consider(link& on);
  void connect(link& on);
  [[nodiscard]] bool is_fenced(const link& on) const;
  template <class Visit>
  void each_link(node_index at, Visit visit);

  timeline& time_;
  trace& log_;
  splitmix64 random_;
  options options_;
  std::vector<node> nodes_;
  std::map<std::pair<node_index, node_index>, link> links_;
  std::uint64_t last_id_ = 0;
  std::uint64_t last_session_ = 0;
  std::uint64_t last_cut_ = 0;
};

} // namespace troupe::sim
