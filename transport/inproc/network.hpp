#pragma once

#include "troupe/base/prng.hpp"
#include "troupe/transport/transport.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

namespace troupe::net::inproc {

struct network_options {
  /// All delays, ids and challenges come from this: the same seed and calls give the same run.
  std::uint64_t seed = 1;
  /// Every frame takes a time of its own between these, so frames overtake each other.
  duration delay_min = std::chrono::microseconds{20};
  duration delay_max = std::chrono::microseconds{400};
};

class node;

/// A network in one process with a time of its own: nothing happens until it is stepped. All nodes
/// live in the thread of the caller, who may call their functions between steps; handlers run
/// inside step(). Not thread-safe.
///
/// A link keeps its frames, like TCP, until it breaks. Faults are the caller's: kill, stop, cut and
/// break_links.
class network {
public:
  explicit network(const network_options& options = {});
  ~network();
  network(const network&) = delete;
  network& operator=(const network&) = delete;

  /// A node that lives as long as the network. An id of 0 is drawn from the seed.
  /// @param user outlives the network
  transport& add(node_options options, handler& user);

  [[nodiscard]] time_point now() const noexcept { return now_; }
  /// Does the next thing that is due, moving the time to it. @return false when nothing ever is
  bool step();
  /// Steps until the time has moved on by `time`.
  void run_for(duration time);
  /// Steps until `done` holds. @return false when `limit` passed first
  bool run_until(const std::function<bool()>& done, duration limit);

  /// The process is gone: its links break, its handler hears nothing more.
  void kill(transport& of);
  /// The process stands still, its links stay; resume() lets it go on where it was.
  void stop(transport& of);
  void resume(transport& of);
  /// Nothing passes between two nodes; links stay, frames wait for heal().
  void cut(transport& a, transport& b);
  void heal(transport& a, transport& b);
  /// The links between two nodes break; both notice.
  void break_links(transport& a, transport& b);
  /// Payload bytes of received messages of a node that still have owners, as buffers.
  [[nodiscard]] std::uint64_t buffers_out(const transport& of) const;

private:
  friend class node;

  struct happening {
    node* at = nullptr;
    std::function<void(node&)> what;
  };
  using pair = std::pair<const node*, const node*>;

  void schedule(duration after, node& at, std::function<void(node&)> what);
  void across(node& from, node& to, std::function<void(node&)> what);
  [[nodiscard]] duration delay();
  [[nodiscard]] bool is_cut(const node& a, const node& b) const;
  [[nodiscard]] node& find(const transport& of) const;
  [[nodiscard]] node* listener_at(const address& where) const;
  [[nodiscard]] node* next_due() const;
  void run(node& at, const std::function<void(node&)>& what);

  network_options options_;
  splitmix64 random_;
  time_point now_{std::chrono::hours{1}};
  std::uint64_t counter_ = 0;
  std::uint16_t next_port_ = 49152;
  std::map<std::pair<time_point, std::uint64_t>, happening> queue_;
  std::vector<std::unique_ptr<node>> nodes_;
  std::set<pair> cuts_;
  /// What waits for a cut to heal, in order.
  std::vector<std::pair<node*, happening>> held_;
};

} // namespace troupe::net::inproc
