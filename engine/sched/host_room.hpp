#pragma once

#include "troupe/base/ids.hpp"

#include <cstdint>
#include <functional>
#include <queue>
#include <span>
#include <vector>

namespace troupe::engine {

/// The places in host memory for blocks of preempted sequences, and which of them are free. The
/// lowest goes first, so that the same events take the same places.
class host_room {
public:
  explicit host_room(std::uint32_t num_places);

  /// Takes so many places. @pre count <= free()
  [[nodiscard]] std::vector<host_block> take(std::uint32_t count);
  /// Gives places back: what a later step saves may go there.
  void give_back(std::span<const host_block> places);

  [[nodiscard]] std::uint32_t free() const { return static_cast<std::uint32_t>(free_.size()); }
  [[nodiscard]] std::uint32_t used() const { return total() - free(); }
  [[nodiscard]] std::uint32_t total() const { return static_cast<std::uint32_t>(taken_.size()); }

private:
  std::vector<bool> taken_;
  std::priority_queue<std::uint32_t, std::vector<std::uint32_t>, std::greater<>> free_;
};

} // namespace troupe::engine
