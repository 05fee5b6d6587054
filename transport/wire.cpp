#include "transport/wire.hpp"

#include "transport/byte_io.hpp"
#include "troupe/base/check.hpp"

#include <fmt/core.h>

#include <cstring>

namespace troupe::net {

namespace {

constexpr std::uint8_t magic = 0x54;

constexpr bool is_known(std::uint8_t op) noexcept {
  return op >= static_cast<std::uint8_t>(opcode::hello) &&
         op <= static_cast<std::uint8_t>(opcode::bye);
}

} // namespace

void encode_header(const frame_header& header, std::span<std::byte> out) {
  TROUPE_CHECK(out.size() >= frame_header_bytes, "{} bytes for a header", out.size());
  auto* at = out.data();
  const auto put = [&at](auto value) {
    std::memcpy(at, &value, sizeof value);
    at += sizeof value;
  };
  put(magic);
  put(header.version);
  put(header.op);
  put(header.flags);
  put(header.meta_bytes);
  put(header.payload_bytes);
  put(std::uint32_t{0});
  put(header.token);
  put(header.sequence);
  put(header.credit);
}

result<frame_header> decode_header(std::span<const std::byte> head, std::size_t payload_bytes) {
  byte_reader r{head};
  frame_header out;
  const auto first = r.number<std::uint8_t>();
  out.version = r.number<std::uint8_t>();
  const auto op = r.number<std::uint8_t>();
  out.flags = r.number<std::uint8_t>();
  out.meta_bytes = r.number<std::uint32_t>();
  out.payload_bytes = r.number<std::uint32_t>();
  const auto reserved = r.number<std::uint32_t>();
  out.token = r.number<std::uint64_t>();
  out.sequence = r.number<std::uint64_t>();
  out.credit = r.number<std::uint64_t>();
  if (!r.good())
    return fail(errc::corrupt_data, fmt::format("a frame of {} bytes has no header", head.size()));
  if (first != magic)
    return fail(errc::corrupt_data, "a frame of another protocol");
  out.op = opcode{op};
  if (out.version != protocol_version)
    return out;
  if (!is_known(op) || out.flags != 0 || reserved != 0)
    return fail(errc::corrupt_data, fmt::format("unknown opcode {} or flags {}", op, out.flags));
  if (out.meta_bytes != r.left() || out.payload_bytes != payload_bytes)
    return fail(errc::corrupt_data,
                fmt::format("a frame says {} + {} bytes and has {} + {}", out.meta_bytes,
                            out.payload_bytes, r.left(), payload_bytes));
  return out;
}

void append_batch_item(std::vector<std::byte>& out, std::span<const std::byte> header,
                       std::span<const std::byte> payload) {
  byte_writer w{out};
  w.number(static_cast<std::uint32_t>(header.size()));
  w.number(static_cast<std::uint32_t>(payload.size()));
  w.raw(header);
  w.raw(payload);
}

result<void> for_each_batch_item(const shared_bytes& batch,
                                 const std::function<void(batch_item)>& take) {
  byte_reader r{batch.view()};
  while (r.left() > 0) {
    const auto header_bytes = r.number<std::uint32_t>();
    const auto payload_bytes = r.number<std::uint32_t>();
    const auto offset = batch.size() - r.left();
    static_cast<void>(r.raw(header_bytes));
    static_cast<void>(r.raw(payload_bytes));
    if (!r.good())
      return fail(errc::corrupt_data, "an item of a batch runs over its end");
    const auto part = [&](std::size_t at, std::size_t size) {
      return size == 0 ? shared_bytes{} : batch.slice(at, size);
    };
    take({part(offset, header_bytes), part(offset + header_bytes, payload_bytes)});
  }
  return {};
}

} // namespace troupe::net
