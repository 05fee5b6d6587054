#include "actors/edge/api_error.hpp"

#include <nlohmann/json.hpp>

#include <utility>

namespace troupe::actors {

namespace {

/// How one errc looks from outside.
struct outside {
  unsigned status;
  const char* type;
  const char* code;
  unsigned retry_after_s = 0;
};

outside look_of(errc code) {
  switch (code) {
  case errc::invalid_argument:
  case errc::bad_shape:
  case errc::conflict:
  case errc::limit_exceeded:
    return {400, "invalid_request_error", "invalid_value"};
  case errc::unsupported:
    return {400, "invalid_request_error", "unsupported_value"};
  case errc::not_found:
    return {404, "invalid_request_error", "model_not_found"};
  case errc::unauthorized:
    return {401, "invalid_request_error", "invalid_api_key"};
  case errc::busy:
  case errc::pool_exhausted:
    return {429, "rate_limit_error", "rate_limit_exceeded", 1};
  case errc::draining:
    return {503, "server_error", "draining", 5};
  case errc::peer_down:
    return {503, "server_error", "replica_down", 1};
  case errc::out_of_memory:
    return {503, "server_error", "out_of_memory", 5};
  case errc::timed_out:
    return {504, "server_error", "timed_out"};
  case errc::cancelled:
    return {503, "server_error", "cancelled", 1};
  case errc::none:
  case errc::corrupt_data:
  case errc::io_failure:
  case errc::internal:
    break;
  }
  return {500, "server_error", "internal_error"};
}

nlohmann::json text_or_null(const std::string& text) {
  return text.empty() ? nlohmann::json(nullptr) : nlohmann::json(text);
}

} // namespace

tl::unexpected<api_error> refuse(std::string param, std::string message, std::string code) {
  api_error e;
  e.message = std::move(message);
  e.param = std::move(param);
  e.code = std::move(code);
  return tl::unexpected<api_error>(std::move(e));
}

api_error to_api_error(const error& why) {
  const auto look = look_of(why.code);
  api_error e;
  e.status = look.status;
  e.type = look.type;
  e.code = look.code;
  e.retry_after_s = look.retry_after_s;
  e.message = why.note.empty() ? std::string{to_string(why.code)} : why.note;
  // The scheduler and the backend name the limit when a prompt is too long for the context.
  if (look.status == 400 && why.note.find("max_model_len") != std::string::npos)
    e.code = "context_length_exceeded";
  return e;
}

std::string to_json(const api_error& e) {
  const nlohmann::ordered_json body = {{"error",
                                        {{"message", e.message},
                                         {"type", e.type},
                                         {"param", text_or_null(e.param)},
                                         {"code", text_or_null(e.code)}}}};
  return body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

} // namespace troupe::actors
