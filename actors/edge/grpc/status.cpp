#include "actors/edge/grpc/status.hpp"

#include "engine/text/utf8.hpp"

namespace troupe::actors::kserve {

namespace {

/// Clients take 8 KiB of trailing metadata, in which a byte may become three.
constexpr std::size_t most_bytes = 2000;

::grpc::StatusCode code_of(failure_code code) {
  switch (code) {
  case failure_code::internal:
    return ::grpc::StatusCode::INTERNAL;
  case failure_code::not_found:
    return ::grpc::StatusCode::NOT_FOUND;
  case failure_code::invalid_arg:
    return ::grpc::StatusCode::INVALID_ARGUMENT;
  case failure_code::unavailable:
    return ::grpc::StatusCode::UNAVAILABLE;
  case failure_code::unsupported:
    return ::grpc::StatusCode::UNIMPLEMENTED;
  case failure_code::already_exists:
    return ::grpc::StatusCode::ALREADY_EXISTS;
  case failure_code::cancelled:
    return ::grpc::StatusCode::CANCELLED;
  case failure_code::unknown:
    break;
  }
  return ::grpc::StatusCode::UNKNOWN;
}

} // namespace

std::string sentence(const failure& f) {
  return engine::text::to_utf8_lossy(without_middle(f.text, most_bytes));
}

::grpc::Status to_status(const failure& f) { return {code_of(f.code), sentence(f)}; }

} // namespace troupe::actors::kserve
