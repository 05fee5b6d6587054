#include "actors/edge/kserve/inflate.hpp"

#include <fmt/core.h>
#include <zlib.h>

#include <algorithm>

namespace troupe::actors::kserve {

namespace {

constexpr std::size_t step = 64U << 10U;
/// zlib finds out by itself whether it is gzip's or zlib's form.
constexpr int any_form = 15 + 32;

struct stream_owner {
  z_stream z{};
  bool open = false;
  ~stream_owner() {
    if (open)
      inflateEnd(&z);
  }
};

} // namespace

outcome<std::string> inflate_body(std::string_view packed, std::uint64_t most) {
  stream_owner owner;
  auto& z = owner.z;
  owner.open = inflateInit2(&z, any_form) == Z_OK;
  if (!owner.open)
    return refuse(failure_code::unavailable, "no memory is left to unpack the body");
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  z.avail_in = static_cast<uInt>(packed.size());
  std::string out;
  int state = Z_OK;
  while (state == Z_OK) {
    const auto have = out.size();
    if (have > most)
      return refuse(fmt::format("the body is larger than {} bytes when it is unpacked", most));
    out.resize(have + step);
    z.next_out = reinterpret_cast<Bytef*>(out.data() + have);
    z.avail_out = static_cast<uInt>(step);
    state = inflate(&z, Z_NO_FLUSH);
    out.resize(out.size() - z.avail_out);
  }
  if (state != Z_STREAM_END || z.avail_in != 0)
    return refuse("the body is no complete gzip or deflate stream, as its Content-Encoding says");
  return out;
}

} // namespace troupe::actors::kserve
