#include "transport/caf/envelope.hpp"

#include "transport/byte_io.hpp"
#include "troupe/transport/caf.hpp"

#include <fmt/core.h>

#include <cstring>
#include <limits>
#include <utility>

namespace troupe::net {

namespace seam {

namespace {

constexpr std::size_t envelope_bytes = 32;
/// Smaller buffers are cheaper inside the stream.
constexpr std::size_t out_of_band_bytes_min = 2048;

constexpr std::uint8_t foreign_source_flag = 1;
/// The stream is in the header, not at the start of the payload.
constexpr std::uint8_t inline_flag = 2;

thread_local content* collecting = nullptr;
thread_local shared_bytes* handing_out = nullptr;

} // namespace

buffers_out::buffers_out(content& to) noexcept { collecting = &to; }
buffers_out::~buffers_out() { collecting = nullptr; }

buffers_in::buffers_in(shared_bytes from) noexcept {
  thread_local shared_bytes left;
  left = std::move(from);
  handing_out = &left;
}
buffers_in::~buffers_in() {
  *handing_out = {};
  handing_out = nullptr;
}

parcel pack(const envelope& outside, content inside) {
  const bool in_header = envelope_bytes + inside.stream.size() <= header_bytes_max;
  parcel out;
  out.header.reserve(envelope_bytes + (in_header ? inside.stream.size() : 0));
  byte_writer w{out.header};
  w.number(static_cast<std::uint8_t>(outside.what));
  w.number(static_cast<std::uint8_t>((outside.foreign_source ? foreign_source_flag : 0) |
                                     (in_header ? inline_flag : 0)));
  w.number(std::uint16_t{0});
  w.number(static_cast<std::uint32_t>(inside.stream.size()));
  w.number(outside.id);
  w.number(outside.src);
  w.number(outside.dst);
  const auto stream = std::as_bytes(std::span{inside.stream});
  if (in_header)
    w.raw(stream);
  if (in_header && inside.buffers.size() <= 1) {
    if (!inside.buffers.empty())
      out.payload = std::move(inside.buffers.front());
    return out;
  }
  if (inside.buffers.empty()) {
    auto owner = std::make_shared<const std::vector<char>>(std::move(inside.stream));
    const auto view = std::as_bytes(std::span{*owner});
    out.payload = {std::move(owner), view};
    return out;
  }
  std::vector<std::byte> joined;
  if (!in_header)
    joined.assign(stream.begin(), stream.end());
  for (const auto& buffer : inside.buffers)
    joined.insert(joined.end(), buffer.view().begin(), buffer.view().end());
  out.payload = shared_bytes::adopt(std::move(joined));
  return out;
}

result<opened> open(std::span<const std::byte> header, const shared_bytes& payload) {
  byte_reader r{header};
  opened out;
  const auto what = r.number<std::uint8_t>();
  const auto flags = r.number<std::uint8_t>();
  const auto reserved = r.number<std::uint16_t>();
  const auto stream_bytes = r.number<std::uint32_t>();
  out.outside.id = r.number<std::uint64_t>();
  out.outside.src = r.number<std::uint64_t>();
  out.outside.dst = r.number<std::uint64_t>();
  const bool known = what >= static_cast<std::uint8_t>(verb::intro) &&
                     what <= static_cast<std::uint8_t>(verb::bounce);
  if (!r.good() || !known || reserved != 0 || (flags & ~(foreign_source_flag | inline_flag)) != 0)
    return fail(errc::corrupt_data, "a message with a malformed envelope");
  out.outside.what = verb{what};
  out.outside.foreign_source = (flags & foreign_source_flag) != 0;
  const bool in_header = (flags & inline_flag) != 0;
  if (in_header ? r.left() != stream_bytes : r.left() != 0 || stream_bytes > payload.size())
    return fail(errc::corrupt_data,
                fmt::format("a stream of {} bytes that is not there", stream_bytes));
  out.stream = in_header ? header.subspan(envelope_bytes) : payload.view().first(stream_bytes);
  out.buffers = in_header ? payload : payload.slice(stream_bytes, payload.size() - stream_bytes);
  return out;
}

} // namespace seam

caf::error inspect(caf::serializer& sink, shared_bytes& x) {
  const bool aside = seam::collecting != nullptr && x.size() >= seam::out_of_band_bytes_min;
  auto mark = static_cast<std::uint8_t>(aside);
  auto size = static_cast<std::uint64_t>(x.size());
  if (auto e = sink(mark, size))
    return e;
  if (aside) {
    seam::collecting->buffers.push_back(x);
    return caf::none;
  }
  // CAF's serialisers take what they only read as mutable.
  return x.empty() ? caf::error{} : sink.apply_raw(x.size(), const_cast<std::byte*>(x.data()));
}

caf::error inspect(caf::deserializer& source, shared_bytes& x) {
  std::uint8_t mark = 0;
  std::uint64_t size = 0;
  if (auto e = source(mark, size))
    return e;
  if (mark != 0) {
    auto* const left = seam::handing_out;
    if (left == nullptr || left->size() < size)
      return caf::sec::end_of_stream;
    x = left->slice(0, size);
    *left = left->slice(size, left->size() - size);
    return caf::none;
  }
  // Read piece by piece, so that a size that lies is found before memory is taken for it.
  constexpr std::size_t piece_bytes = 65536;
  std::vector<std::byte> bytes;
  while (bytes.size() < size) {
    const auto at = bytes.size();
    bytes.resize(at + std::min<std::uint64_t>(piece_bytes, size - at));
    if (auto e = source.apply_raw(bytes.size() - at, bytes.data() + at))
      return e;
  }
  x = shared_bytes::adopt(std::move(bytes));
  return caf::none;
}

std::string to_string(const shared_bytes& x) { return fmt::format("{} bytes", x.size()); }

caf::error to_caf_error(const error& e) {
  return {static_cast<std::uint8_t>(e.code), caf::atom("troupe"), caf::make_message(e.note)};
}

} // namespace troupe::net
