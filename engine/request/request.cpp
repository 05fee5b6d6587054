#include "troupe/engine/request.hpp"

namespace troupe::engine {

std::string_view to_string(finish_reason reason) noexcept {
  switch (reason) {
  case finish_reason::none:
    return "";
  case finish_reason::stop:
    return "stop";
  case finish_reason::length:
    return "length";
  case finish_reason::abort:
    return "abort";
  case finish_reason::error:
    return "error";
  }
  return "";
}

} // namespace troupe::engine
