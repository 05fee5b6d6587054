#pragma once

#include <compare>
#include <cstdint>
#include <type_traits>

namespace troupe {

/// A token of a model's vocabulary, as in checkpoints: never negative in a valid sequence.
using token_id = std::int32_t;

/// One block of the paged KV cache of one replica; an index into its pool.
enum class block_id : std::uint32_t {};
/// A place in host memory that holds the contents of one block of a preempted sequence.
enum class host_block : std::uint32_t {};
/// One request, unique in the cluster: front process in the upper bits, a counter in the lower.
enum class request_id : std::uint64_t {};
/// One step of one replica, counted from 1 without gaps.
enum class step_id : std::uint64_t {};
/// One stream of tokens inside one hub.
enum class stream_id : std::uint64_t {};
/// The hub of one front process.
enum class hub_id : std::uint32_t {};
/// One replica of one model.
enum class replica_id : std::uint32_t {};
/// A hash that names the contents of a KV block and of all blocks before it.
enum class block_hash : std::uint64_t {};

/// The number behind an id, for indexing, printing and the wire.
template <class Id>
requires std::is_enum_v<Id>
[[nodiscard]] constexpr auto value(Id id) noexcept {
  return static_cast<std::underlying_type_t<Id>>(id);
}

} // namespace troupe
