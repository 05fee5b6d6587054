#pragma once

#include "troupe/base/clock.hpp"
#include "troupe/base/prng.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <queue>
#include <vector>

namespace netem {

using troupe::duration;
using troupe::time_point;
using frame = std::vector<std::byte>;

/// What happens to frames on their way from one port to another.
struct conditions {
  bool cut = false;
  duration delay{};
  /// Probabilities of a frame.
  double loss = 0;
  double reorder = 0;
};

struct counters {
  std::uint64_t delivered = 0;
  /// Lost by chance.
  std::uint64_t lost = 0;
  /// Swallowed by a cut or by a queue that was full.
  std::uint64_t swallowed = 0;
  std::uint64_t reordered = 0;
};

/// A switch between the ports, with a way of its own from each port to each other. Pure: frames and
/// times in, frames out. What is drawn depends on the seed, the way and the number of the frame on
/// it, so the traffic of one way changes nothing on another.
class ether_switch {
public:
  ether_switch(std::size_t ports, std::uint64_t seed);

  [[nodiscard]] std::size_t ports() const noexcept { return ports_; }
  [[nodiscard]] conditions& way(std::size_t from, std::size_t to) { return at(from, to).how; }
  [[nodiscard]] const counters& count(std::size_t from, std::size_t to) {
    return at(from, to).seen;
  }

  /// A frame came in: to the port of its destination, or to all others.
  void take(std::size_t from, const frame& what, time_point now);
  /// When the next frame is to leave; max() when none waits.
  [[nodiscard]] time_point due() const;
  /// Lets out what is due. A frame that meets a cut on its way is swallowed by it.
  void release(time_point now, const std::function<void(std::size_t to, const frame&)>& deliver);

private:
  struct way_state {
    conditions how;
    counters seen;
    troupe::splitmix64 draws{0};
    time_point last_due{};
  };
  struct waiting {
    time_point due;
    std::uint64_t number;
    std::size_t from;
    std::size_t to;
    frame what;
    bool operator>(const waiting& other) const {
      return due != other.due ? due > other.due : number > other.number;
    }
  };

  [[nodiscard]] way_state& at(std::size_t from, std::size_t to) {
    return ways_[from * ports_ + to];
  }
  void pass(std::size_t from, std::size_t to, const frame& what, time_point now);

  std::size_t ports_;
  std::vector<way_state> ways_;
  std::priority_queue<waiting, std::vector<waiting>, std::greater<>> queue_;
  std::uint64_t next_number_ = 0;
};

} // namespace netem
