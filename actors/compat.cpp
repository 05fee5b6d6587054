#include "troupe/actors/compat.hpp"

namespace troupe::actors {

namespace {

std::string note_of(const caf::error& e) {
  if (e.context().match_elements<std::string>())
    return e.context().get_as<std::string>(0);
  return caf::to_string(e);
}

} // namespace

bool is_from_troupe(const caf::error& e) noexcept {
  return e && e.category() == caf::atom("troupe");
}

error from_caf(const caf::error& e) {
  if (!e)
    return {errc::none, ""};
  if (is_from_troupe(e) && e.code() <= static_cast<std::uint8_t>(errc::internal))
    return {static_cast<errc>(e.code()), note_of(e)};
  if (e == caf::sec::request_timeout)
    return {errc::timed_out, "an actor did not answer in time"};
  if (e == caf::sec::request_receiver_down || e.category() == caf::atom("exit"))
    return {errc::peer_down, "the actor that held the request is gone"};
  return {errc::internal, "actor error: " + caf::to_string(e)};
}

} // namespace troupe::actors
