#include "troupe/base/error.hpp"

namespace troupe {

std::string_view to_string(errc code) noexcept {
  switch (code) {
  case errc::none:
    return "none";
  case errc::invalid_argument:
    return "invalid_argument";
  case errc::not_found:
    return "not_found";
  case errc::unsupported:
    return "unsupported";
  case errc::conflict:
    return "conflict";
  case errc::corrupt_data:
    return "corrupt_data";
  case errc::io_failure:
    return "io_failure";
  case errc::busy:
    return "busy";
  case errc::pool_exhausted:
    return "pool_exhausted";
  case errc::out_of_memory:
    return "out_of_memory";
  case errc::bad_shape:
    return "bad_shape";
  case errc::unauthorized:
    return "unauthorized";
  case errc::timed_out:
    return "timed_out";
  case errc::cancelled:
    return "cancelled";
  case errc::peer_down:
    return "peer_down";
  case errc::draining:
    return "draining";
  case errc::limit_exceeded:
    return "limit_exceeded";
  case errc::internal:
    return "internal";
  }
  return "unknown";
}

std::string to_string(const error& e) {
  std::string text{to_string(e.code)};
  if (!e.note.empty())
    text += ": " + e.note;
  return text;
}

} // namespace troupe
