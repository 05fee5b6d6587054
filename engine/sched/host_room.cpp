#include "engine/sched/host_room.hpp"

#include "troupe/base/check.hpp"

namespace troupe::engine {

host_room::host_room(std::uint32_t num_places) : taken_(num_places, false) {
  for (std::uint32_t i = 0; i < num_places; ++i)
    free_.push(i);
}

std::vector<host_block> host_room::take(std::uint32_t count) {
  TROUPE_CHECK(count <= free(), "{} places of {} free ones", count, free());
  std::vector<host_block> places;
  places.reserve(count);
  for (; count > 0; --count) {
    places.push_back(host_block{free_.top()});
    taken_[free_.top()] = true;
    free_.pop();
  }
  return places;
}

void host_room::give_back(std::span<const host_block> places) {
  for (const auto place : places) {
    TROUPE_CHECK(value(place) < taken_.size() && taken_[value(place)], "place {} is free",
                 value(place));
    taken_[value(place)] = false;
    free_.push(value(place));
  }
}

} // namespace troupe::engine
