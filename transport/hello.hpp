#pragma once

#include "transport/proof.hpp"
#include "troupe/transport/transport.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

/// What two nodes say before they trust each other, as pure functions.
namespace troupe::net {

/// Which process of which host a node is; all 0 where nobody can know. Tells whether a peer shares
/// memory with us, and whether its process still lives.
struct process_identity {
  std::uint64_t host = 0;
  std::uint64_t process = 0;
  /// When the process started, so that a process id that is used again is another process.
  std::uint64_t started = 0;

  friend bool operator==(const process_identity&, const process_identity&) = default;
};

/// The body of hello and hello_ack.
struct hello {
  /// What the other end puts into every frame of this connection from now on.
  std::uint64_t token = 0;
  node_id id;
  std::string name;
  address listens_at;
  std::uint64_t types_hash = 0;
  std::vector<config_part> config;
  bool has_secret = false;
  /// The credit that the sender grants.
  std::uint64_t window_bytes = 0;
  process_identity where;
  /// Random, for the proof of the other end.
  std::array<std::byte, 32> challenge{};

  friend bool operator==(const hello&, const hello&) = default;
};

/// What the hello of a node starts from.
[[nodiscard]] hello hello_of(const identity& self);
[[nodiscard]] std::vector<std::byte> encode(const hello& body);
/// @errors corrupt_data: truncated, too long, or a count or text over its bound
[[nodiscard]] result<hello> decode_hello(std::span<const std::byte> body);

/// Why a hello is refused. The numbers travel; they never change.
enum class refusal_kind : std::uint8_t {
  version = 1,
  types = 2,
  config = 3,
  secret = 4,
  same_id = 5,
  same_name = 6,
  fenced = 7,
  /// Not an error: the nodes are, or will be, connected by another connection.
  duplicate = 8,
  draining = 9,
  full = 10,
  malformed = 11,
};

/// The body of refuse.
struct refusal {
  refusal_kind kind = refusal_kind::malformed;
  std::string note;
  /// Who refuses, so that a duplicate can be matched with the other connection.
  node_id by;
  std::string by_name;
};

[[nodiscard]] std::vector<std::byte> encode(const refusal& body);
/// @errors corrupt_data
[[nodiscard]] result<refusal> decode_refusal(std::span<const std::byte> body);
/// The error that people see at either end.
[[nodiscard]] error to_error(const refusal& why);

/// Compares what both ends insist on.
/// @return why they do not fit, in words that are true at both ends; nothing when they fit
[[nodiscard]] std::optional<refusal> misfit(const hello& mine, const hello& theirs);
/// The refusal of a frame of another protocol version.
[[nodiscard]] refusal version_misfit(const hello& mine, std::uint8_t theirs);

inline constexpr std::size_t gossip_nodes_max = 256;
/// The body of gossip; at most gossip_nodes_max nodes.
[[nodiscard]] std::vector<std::byte> encode(std::span<const known_node> nodes);
/// @errors corrupt_data
[[nodiscard]] result<std::vector<known_node>> decode_gossip(std::span<const std::byte> body);

} // namespace troupe::net
