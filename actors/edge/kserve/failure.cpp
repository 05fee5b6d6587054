#include "actors/edge/kserve/failure.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <utility>

namespace troupe::actors::kserve {

namespace {

/// Room for the findings of a model that does not load.
constexpr std::size_t most_bytes = 16384;

failure_code code_of(errc code) {
  switch (code) {
  case errc::invalid_argument:
  case errc::bad_shape:
  case errc::conflict:
  case errc::limit_exceeded:
  case errc::corrupt_data:
  case errc::unauthorized:
    return failure_code::invalid_arg;
  case errc::unsupported:
    return failure_code::unsupported;
  case errc::not_found:
    return failure_code::not_found;
  case errc::busy:
  case errc::pool_exhausted:
  case errc::draining:
  case errc::peer_down:
  case errc::out_of_memory:
  case errc::timed_out:
    return failure_code::unavailable;
  case errc::cancelled:
    return failure_code::cancelled;
  case errc::none:
  case errc::io_failure:
  case errc::internal:
    break;
  }
  return failure_code::internal;
}

} // namespace

tl::unexpected<failure> refuse(failure_code code, std::string text) {
  return tl::unexpected<failure>(failure{code, std::move(text)});
}

tl::unexpected<failure> refuse(std::string text) {
  return refuse(failure_code::invalid_arg, std::move(text));
}

failure to_failure(const error& why) {
  return {code_of(why.code), why.note.empty() ? std::string{to_string(why.code)} : why.note};
}

unsigned http_status(failure_code code) {
  switch (code) {
  case failure_code::internal:
    return 500;
  case failure_code::not_found:
    return 404;
  case failure_code::unavailable:
    return 503;
  case failure_code::unsupported:
    return 501;
  default:
    return 400;
  }
}

std::string without_middle(std::string_view text, std::size_t most) {
  constexpr std::string_view gap = " [...] ";
  if (text.size() <= most)
    return std::string{text};
  const auto half = (most - gap.size()) / 2;
  return fmt::format("{}{}{}", text.substr(0, half), gap, text.substr(text.size() - half));
}

std::string error_json(std::string_view text) {
  using json = nlohmann::ordered_json;
  const json body = {{"error", without_middle(text, most_bytes)}};
  return body.dump(-1, ' ', false, json::error_handler_t::replace);
}

} // namespace troupe::actors::kserve
