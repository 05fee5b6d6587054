#pragma once

#include "transport/link.hpp"

#include <ucp/api/ucp.h>

#include <cstdint>
#include <string>

namespace troupe::net::ucx {

/// One ucp_ep_h and how it ends. UCX 1.13 aborts the process when an endpoint or its worker goes
/// while operations are in flight, so an end takes several turns of the progress loop, each with a
/// deadline: flush; where the last frame must be heard, wait for the peer's end; wait for receives
/// that are under way; force the close; wait for the callbacks of all sends. One that takes longer
/// than all its deadlines is stuck: nobody waits for it any more, and it is never destroyed. That
/// happens when a process is killed under load and UCX forgets one of its operations.
class endpoint {
public:
  endpoint(link_id link, ucp_ep_h handle) noexcept : link_{link}, handle_{handle} {}
  endpoint(const endpoint&) = delete;
  endpoint& operator=(const endpoint&) = delete;

  [[nodiscard]] link_id link() const noexcept { return link_; }
  [[nodiscard]] ucp_ep_h handle() const noexcept { return handle_; }

  /// UCX has reported an error: nothing more can be flushed.
  void failed() noexcept { failed_ = true; }
  [[nodiscard]] bool has_failed() const noexcept { return failed_; }
  /// Starts the end.
  void close(parting how, time_point now) noexcept;
  /// Takes the next step of the end. Not inside a callback of UCX. @return true when it is over
  [[nodiscard]] bool step(time_point now);
  [[nodiscard]] bool is_stuck(time_point now) const noexcept;
  [[nodiscard]] bool idle() const noexcept { return sends == 0 && receives == 0; }

  /// The transports of its lanes, each once, e.g. "posix cma tcp"; asks UCX once.
  [[nodiscard]] const std::string& lanes() const;

  /// Operations that UCX works on.
  std::uint32_t sends = 0;
  std::uint32_t receives = 0;
  /// Payloads are copied by this thread from the memory of the peer's process.
  bool copies = false;
  /// Everything goes over tcp.
  bool tcp_alone = false;
  /// Set when the peer may still read what was sent: the buffers of sends that fail are kept.
  bool suspect = false;
  process_identity peer;

private:
  enum class stage : std::uint8_t { open, flush, flushing, parting, settle, closing, over };

  [[nodiscard]] bool request_done(time_point now);
  void start_flush(time_point now);
  void start_close(time_point now);

  link_id link_;
  ucp_ep_h handle_;
  stage stage_ = stage::open;
  ucs_status_ptr_t request_ = nullptr;
  time_point deadline_{};
  bool failed_ = false;
  /// The end waits for the peer's.
  bool patient_ = false;
  mutable std::string lanes_;
};

} // namespace troupe::net::ucx
