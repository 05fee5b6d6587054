#pragma once

#include "troupe/transport/shared_bytes.hpp"
#include "troupe/transport/transport.hpp"

#include <caf/all.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

/// What CAF's seam puts into a message of the transport. Pure, but for CAF's serialisers.
namespace troupe::net::seam {

enum class verb : std::uint8_t {
  /// My first message: my node id and where I listen.
  intro = 1,
  /// Where another node listens.
  about,
  /// A message for the actor `dst`.
  message,
  /// Tell me when the actor `dst` ends.
  monitor,
  /// The actor `src` has ended.
  down,
  /// The actor `dst` is linked to my actor `src`; or not any more.
  link,
  unlink,
  /// Who is published under this name? `id` is the number of the question.
  lookup,
  found,
  /// The request of the actor `dst` cannot be answered; `id` is that of the response.
  bounce,
};

/// The fixed part of a message; 32 bytes, little-endian, at the start of the transport's header.
struct envelope {
  verb what = verb::message;
  /// The stream starts with the node of `src`, which is neither sender nor receiver.
  bool foreign_source = false;
  std::uint64_t id = 0;
  std::uint64_t src = 0;
  std::uint64_t dst = 0;
};

/// A message for the transport: its header and its payload.
struct parcel {
  std::vector<std::byte> header;
  shared_bytes payload;

  [[nodiscard]] std::size_t bytes() const noexcept { return header.size() + payload.size(); }
};

/// CAF's stream of a message and the buffers that travel beside it.
struct content {
  std::vector<char> stream;
  std::vector<shared_bytes> buffers;
};

/// Collects buffers while something is serialised in this thread.
class buffers_out {
public:
  explicit buffers_out(content& to) noexcept;
  ~buffers_out();
  buffers_out(const buffers_out&) = delete;
  buffers_out& operator=(const buffers_out&) = delete;
};

/// Hands buffers out while something is deserialised in this thread.
class buffers_in {
public:
  explicit buffers_in(shared_bytes from) noexcept;
  ~buffers_in();
  buffers_in(const buffers_in&) = delete;
  buffers_in& operator=(const buffers_in&) = delete;
};

/// Packs a message: a short stream into the header, one buffer as the payload, uncopied. What does
/// not fit that shape is joined into one payload.
[[nodiscard]] parcel pack(const envelope& outside, content inside);

/// A message that came in.
struct opened {
  envelope outside;
  std::span<const std::byte> stream;
  /// What follows the stream in the payload.
  shared_bytes buffers;
};
/// @errors corrupt_data
[[nodiscard]] result<opened> open(std::span<const std::byte> header, const shared_bytes& payload);

/// Writes values with CAF's serialiser. @errors CAF's
template <class... Ts>
[[nodiscard]] caf::error write(caf::actor_system& sys, std::vector<char>& out, Ts&... xs) {
  caf::binary_serializer sink{sys, out};
  return sink(xs...);
}
template <class... Ts>
[[nodiscard]] caf::error read(caf::execution_unit& ctx, std::span<const std::byte> in, Ts&... xs) {
  caf::binary_deserializer source{&ctx, reinterpret_cast<const char*>(in.data()), in.size()};
  return source(xs...);
}

} // namespace troupe::net::seam
