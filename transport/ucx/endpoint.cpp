#include "transport/ucx/endpoint.hpp"

#include <cctype>
#include <cstdio>
#include <cstdlib>

namespace troupe::net::ucx {

namespace {

using namespace std::chrono_literals;

constexpr auto flush_patience = 500ms;
constexpr auto peer_patience = 500ms;
constexpr auto receive_patience = 200ms;
constexpr auto close_patience = 500ms;

/// The names in lines such as "lane[0]: 3:posix/memory.0 md[2] -> ...".
std::string transports_in(const std::string& text) {
  std::string out;
  for (auto at = text.find("lane["); at != std::string::npos; at = text.find("lane[", at + 1)) {
    const auto slash = text.find('/', at);
    const auto line_end = text.find('\n', at);
    if (slash == std::string::npos || slash > line_end)
      continue;
    const auto colon = text.rfind(':', slash);
    const auto name = text.substr(colon + 1, slash - colon - 1);
    if ((' ' + out + ' ').find(' ' + name + ' ') == std::string::npos)
      out += (out.empty() ? "" : " ") + name;
  }
  return out;
}

} // namespace

void endpoint::close(parting how, time_point now) noexcept {
  stage_ = how == parting::drop || failed_ ? stage::settle : stage::flush;
  patient_ = how == parting::heard;
  deadline_ = now + receive_patience;
}

/// A request that is done, or whose time is up, is given back; UCX frees it when it can.
bool endpoint::request_done(time_point now) {
  if (request_ == nullptr)
    return true;
  if (ucp_request_check_status(request_) == UCS_INPROGRESS && now < deadline_)
    return false;
  ucp_request_free(request_);
  request_ = nullptr;
  return true;
}

void endpoint::start_flush(time_point now) {
  stage_ = stage::flushing;
  deadline_ = now + flush_patience;
  if (failed_)
    return;
  const ucp_request_param_t params{};
  auto* made = ucp_ep_flush_nbx(handle_, &params);
  request_ = UCS_PTR_IS_PTR(made) ? made : nullptr;
}

void endpoint::start_close(time_point now) {
  stage_ = stage::closing;
  deadline_ = now + close_patience;
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = UCP_EP_CLOSE_FLAG_FORCE;
  auto* made = ucp_ep_close_nbx(handle_, &params);
  request_ = UCS_PTR_IS_PTR(made) ? made : nullptr;
}

bool endpoint::step(time_point now) {
  if (stage_ == stage::flush)
    start_flush(now);
  if (stage_ == stage::flushing && (failed_ || request_done(now))) {
    stage_ = stage::parting;
    deadline_ = now + peer_patience;
  }
  if (stage_ == stage::parting && (failed_ || !patient_ || now >= deadline_)) {
    stage_ = stage::settle;
    deadline_ = now + receive_patience;
  }
  // Closing under a receive of CMA fails an assertion of UCX.
  const bool may_close = lanes_.find("cma") == std::string::npos && now >= deadline_;
  if (stage_ == stage::settle && (receives == 0 || may_close)) {
    if (request_ != nullptr)
      ucp_request_free(request_);
    request_ = nullptr;
    start_close(now);
  }
  if (stage_ == stage::closing && request_done(now) && sends == 0)
    stage_ = stage::over;
  return stage_ == stage::over;
}

bool endpoint::is_stuck(time_point now) const noexcept {
  return (stage_ == stage::settle || stage_ == stage::closing) && now >= deadline_;
}

const std::string& endpoint::lanes() const {
  if (!lanes_.empty() || stage_ != stage::open)
    return lanes_;
  char* text = nullptr;
  std::size_t size = 0;
  auto* out = open_memstream(&text, &size);
  if (out == nullptr)
    return lanes_;
  ucp_ep_print_info(handle_, out);
  std::fclose(out);
  lanes_ = transports_in({text, size});
  std::free(text);
  return lanes_;
}

} // namespace troupe::net::ucx
