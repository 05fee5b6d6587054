#include "transport/ucx/driver.hpp"

#include "transport/ucx/process.hpp"
#include "troupe/base/check.hpp"
#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace troupe::net::ucx {

namespace {

ucp_ep_params_t endpoint_params(driver& self, ucp_err_handler_cb_t on_error) {
  ucp_ep_params_t out{};
  out.field_mask = UCP_EP_PARAM_FIELD_ERR_HANDLER | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
  out.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  out.err_handler.cb = on_error;
  out.err_handler.arg = &self;
  return out;
}

constexpr std::size_t patient_closings_max = 64;

/// Takes and drops the messages of every id. Without it any stranger ends the process: UCX 1.13
/// crashes while it composes its warning about a message that no handler wants. The highest id goes
/// first, so that UCX's table (2 MB) is made at once.
ucs_status_t drop_foreign_messages(ucp_worker_h worker) {
  ucp_am_handler_param_t drops{};
  drops.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB;
  drops.cb = [](void*, const void*, std::size_t, void*, std::size_t, const ucp_am_recv_param_t*) {
    return UCS_OK;
  };
  for (unsigned id = std::numeric_limits<std::uint16_t>::max();; --id) {
    drops.id = id;
    if (const auto status = ucp_worker_set_am_recv_handler(worker, &drops); status != UCS_OK)
      return status;
    if (id == 0)
      return UCS_OK;
  }
}

} // namespace

driver::~driver() {
  listener_.reset();
  if (!leaks_)
    return;
  worker_.leak();
  context_.leak();
}

result<void> driver::start(const lane_choice& lanes) {
  auto made = context::make(lanes);
  if (!made)
    return fail(made.error());
  context_ = std::move(*made);
  auto works = worker::make(context_, frame_header_bytes + meta_bytes_max);
  if (!works)
    return fail(works.error());
  worker_ = std::move(*works);
  const auto& in_use = context_.lanes();
  shared_memory_wanted_ = in_use.find("posix") != std::string::npos ||
                          in_use.find("shm") != std::string::npos || in_use.starts_with("all");
  ucp_am_handler_param_t takes{};
  takes.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                     UCP_AM_HANDLER_PARAM_FIELD_ARG | UCP_AM_HANDLER_PARAM_FIELD_FLAGS;
  takes.id = frames_id;
  takes.cb = [](void* self, const void* header, std::size_t header_bytes, void* data,
                std::size_t bytes, const ucp_am_recv_param_t* how) {
    const std::span head{static_cast<const std::byte*>(header), header_bytes};
    return static_cast<driver*>(self)->take(head, data, bytes, *how);
  };
  takes.arg = this;
  takes.flags = UCP_AM_FLAG_WHOLE_MSG;
  auto status = drop_foreign_messages(worker_.get());
  if (status == UCS_OK)
    status = ucp_worker_set_am_recv_handler(worker_.get(), &takes);
  if (status != UCS_OK)
    return fail(to_error(status, errc::io_failure, "UCX takes no handler"));
  log_info("UCX uses {}", in_use);
  return {};
}

result<address> driver::listen(const address& where) {
  const auto at = resolve(where);
  if (!at)
    return fail(errc::io_failure, at.error().note);
  ucp_listener_params_t params{};
  params.field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER;
  params.sockaddr.addr = reinterpret_cast<const sockaddr*>(&at->storage);
  params.sockaddr.addrlen = at->bytes;
  params.conn_handler.cb = on_dialled;
  params.conn_handler.arg = this;
  ucp_listener_h made = nullptr;
  auto status = ucp_listener_create(worker_.get(), &params, &made);
  if (status != UCS_OK)
    return fail(to_error(status, errc::io_failure,
                         fmt::format("cannot listen at {}: is the port taken?", to_string(where))));
  listener_.reset(made);
  ucp_listener_attr_t attributes{};
  attributes.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR;
  status = ucp_listener_query(made, &attributes);
  if (status != UCS_OK)
    return fail(to_error(status, errc::io_failure, "UCX does not say where it listens"));
  return address{where.host, port_of({attributes.sockaddr, sizeof attributes.sockaddr})};
}

driver::endpoint_ref driver::find(link_id link) const {
  const auto found = links_.find(link);
  return found == links_.end() ? nullptr : found->second;
}

void driver::broke(link_id link, error why) { broken_.push_back({link, std::move(why)}); }

result<ucp_ep_h> driver::connect(const address& where) {
  auto to = numeric(where);
  if (!to) {
    const auto known = names_.find(where.host);
    if (known == names_.end())
      return fail(errc::not_found, fmt::format("{} was not looked up", where.host));
    to = known->second;
    const auto port = htons(where.port);
    // Both families keep the port behind the family.
    std::memcpy(reinterpret_cast<std::byte*>(&to->storage) + sizeof(sa_family_t), &port, 2);
  }
  auto params = endpoint_params(*this, on_error);
  params.field_mask |= UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR;
  params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
  params.sockaddr.addr = reinterpret_cast<const sockaddr*>(&to->storage);
  params.sockaddr.addrlen = to->bytes;
  ucp_ep_h made = nullptr;
  const auto status = ucp_ep_create(worker_.get(), &params, &made);
  if (status != UCS_OK)
    return fail(to_error(status, errc::peer_down, fmt::format("cannot dial {}", to_string(where))));
  return made;
}

void driver::open(link_id link, const address& where) {
  const auto made = connect(where);
  if (!made)
    return broke(link, made.error());
  auto ref = std::make_shared<endpoint>(link, *made);
  links_.emplace(link, ref);
  handles_.emplace(*made, std::move(ref));
}

void driver::on_dialled(ucp_conn_request_h request, void* self) {
  static_cast<driver*>(self)->accept(request);
}

void driver::accept(ucp_conn_request_h request) {
  const auto link = mesh_->accept(steady_clock{}.now());
  if (!link) {
    ucp_listener_reject(listener_.get(), request);
    return;
  }
  auto params = endpoint_params(*this, on_error);
  params.field_mask |= UCP_EP_PARAM_FIELD_CONN_REQUEST;
  params.conn_request = request;
  ucp_ep_h made = nullptr;
  const auto status = ucp_ep_create(worker_.get(), &params, &made);
  if (status != UCS_OK)
    return broke(*link, to_error(status, errc::peer_down, "a node that dialled is gone"));
  auto ref = std::make_shared<endpoint>(*link, made);
  links_.emplace(*link, ref);
  handles_.emplace(made, std::move(ref));
}

void driver::on_error(void* self, ucp_ep_h handle, ucs_status_t status) {
  auto& me = *static_cast<driver*>(self);
  const auto found = me.handles_.find(handle);
  if (found == me.handles_.end())
    return;
  found->second->failed();
  me.broke(found->second->link(), to_error(status, errc::peer_down, "the link broke"));
}

bool driver::tell_broken(time_point now) {
  if (broken_.empty())
    return false;
  for (const auto& [link, why] : std::exchange(broken_, {}))
    mesh_->link_down(link, why, now);
  return true;
}

bool driver::progress(time_point now) {
  constexpr int rounds_max = 64;
  now_ = now;
  bytes_in_ = 0;
  fetch_next();
  bool active = bytes_in_ > 0;
  for (int i = 0; i < rounds_max && bytes_in_ < turn_bytes; ++i) {
    if (ucp_worker_progress(worker_.get()) == 0)
      break;
    active = true;
    fetch_next();
  }
  active = tell_broken(now) || active;
  active = step_closing(now) || active;
  release_quarantine(now);
  return active;
}

void driver::close(link_id link, parting how) {
  const auto found = links_.find(link);
  if (found == links_.end())
    return;
  drop_waiting(link);
  // Strangers who are refused and stay may not pile up.
  if (how == parting::heard && closing_.size() >= patient_closings_max)
    how = parting::flush;
  found->second->close(how, steady_clock{}.now());
  closing_.push_back(std::move(found->second));
  links_.erase(found);
}

bool driver::step_closing(time_point now) {
  const auto over = [&](const endpoint_ref& of) {
    if (of->step(now)) {
      handles_.erase(of->handle());
      return true;
    }
    if (!of->is_stuck(now))
      return false;
    log_warn("an endpoint of UCX does not end and is left alone (over {}, {} sends, {} receives{})",
             of->lanes(), of->sends, of->receives, of->has_failed() ? ", failed" : "");
    stuck_.push_back(of);
    return true;
  };
  return std::erase_if(closing_, over) > 0;
}

void driver::suspect(link_id link, const process_identity& peer) {
  const auto of = find(link);
  if (of == nullptr || peer.host != here_.host)
    return;
  of->suspect = true;
  of->peer = peer;
}

void driver::release_quarantine(time_point now) {
  if (quarantine_.empty() || now < next_release_)
    return;
  next_release_ = now + std::chrono::milliseconds{200};
  std::erase_if(quarantine_, [&](const quarantined& q) { return is_gone(q.reader, here_); });
}

void driver::came_up(link_id link, const process_identity& peer) {
  const auto in_use = lanes(link);
  if (const auto of = find(link); of != nullptr) {
    of->copies = in_use.find("cma") != std::string::npos;
    of->tcp_alone = in_use == "tcp";
  }
  log_info("link {} travels over {}", static_cast<std::uint64_t>(link), in_use);
  const bool near = peer.host == here_.host && peer.host != 0;
  if (near && shared_memory_wanted_ && in_use.find("posix") == std::string::npos &&
      in_use.find("sysv") == std::string::npos)
    log_warn("a peer on this host is reached over {} and not over shared memory, which is several "
             "times slower: look at UCX_TLS, UCX_POSIX_ERROR_HANDLING and /dev/shm",
             in_use);
}

/// Over tcp alone every frame is a call of the system, several microseconds each. Round trips take
/// longer than this, so that answers do not wait.
duration driver::gathers(link_id link) const {
  // Less than an answer takes, so that a dialogue waits for nothing.
  return lanes(link) == "tcp" ? std::chrono::microseconds{8} : std::chrono::microseconds{2};
}

std::string driver::lanes(link_id link) const {
  const auto of = find(link);
  return of == nullptr ? std::string{} : of->lanes();
}

void driver::shut_down(time_point deadline) {
  listener_.reset();
  while (!links_.empty())
    close(links_.begin()->first, parting::flush);
  auto now = steady_clock{}.now();
  while (!closing_.empty() && now < deadline) {
    now_ = now;
    ucp_worker_progress(worker_.get());
    step_closing(now);
    now = steady_clock{}.now();
  }
  // A late callback may have ended what was given up.
  std::erase_if(stuck_, [&](const endpoint_ref& of) { return of->step(now); });
  leaks_ = !closing_.empty() || !stuck_.empty();
  if (leaks_)
    log_warn("{} endpoints of UCX do not end; their worker is left to the process",
             closing_.size() + stuck_.size());
}

} // namespace troupe::net::ucx
