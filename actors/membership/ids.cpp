#include "actors/membership/ids.hpp"

#include "troupe/base/prng.hpp"

#include <array>

namespace troupe::actors {

namespace {

enum class kind : std::uint32_t { hub, replica };

std::uint32_t draw(std::uint64_t incarnation, kind what, std::uint32_t number) noexcept {
  const std::array<std::uint32_t, 2> key{static_cast<std::uint32_t>(incarnation),
                                         static_cast<std::uint32_t>(incarnation >> 32)};
  return philox4x32({static_cast<std::uint32_t>(what), number, 0, 0}, key)[0];
}

} // namespace

hub_id id_source::next_hub() noexcept {
  constexpr std::uint32_t mask = (1U << 24) - 1;
  if (incarnation_ == 0)
    return hub_id{++hubs_};
  std::uint32_t drawn = 0;
  while (drawn == 0)
    drawn = draw(incarnation_, kind::hub, ++hubs_) & mask;
  return hub_id{drawn};
}

replica_id id_source::next_replica() noexcept {
  const auto number = replicas_++;
  return replica_id{incarnation_ == 0 ? number : draw(incarnation_, kind::replica, number)};
}

} // namespace troupe::actors
