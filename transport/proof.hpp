#pragma once

#include "troupe/transport/node_id.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

namespace troupe::net {

/// Fills a span with random bytes. The real transport asks the system; the simulation draws from
/// its seed.
using entropy = std::function<void(std::span<std::byte>)>;
/// Random bytes that nobody can guess. Thread-safe.
[[nodiscard]] entropy system_entropy();
/// 64 random bits, never 0.
[[nodiscard]] std::uint64_t draw_word(const entropy& random);
/// A fresh incarnation.
[[nodiscard]] node_id draw_node_id(const entropy& random);

using proof = std::array<std::byte, 32>;

/// HMAC-SHA-256 over `label` and both hellos of a connection, keyed by the cluster's secret. Each
/// end contributes a fresh challenge to its hello and proves under its own label, so that a proof
/// fits one connection and one direction and can be neither replayed nor reflected.
/// @source RFC 2104, RFC 4231
[[nodiscard]] proof prove(std::span<const std::byte> secret, std::string_view label,
                          std::span<const std::byte> dialler_hello,
                          std::span<const std::byte> listener_hello);
/// Equality in constant time.
[[nodiscard]] bool same_proof(const proof& a, std::span<const std::byte> b) noexcept;

} // namespace troupe::net
