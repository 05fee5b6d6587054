#pragma once

#include "troupe/base/error.hpp"
#include "troupe/transport/ucx.hpp"

#include <ucp/api/ucp.h>

#include <memory>
#include <string>
#include <string_view>

/// UCX's objects with owners, and its status as errors. Everything here belongs to one thread at a
/// time.
namespace troupe::net::ucx {

/// "what: UCX's text". @param code what the failure means here
[[nodiscard]] error to_error(ucs_status_t status, errc code, std::string_view what);

/// Sets the UCX_* variables that UCX 1.13 reads from nowhere but the environment, where the
/// operator has not set them. Without these, peer error handling silently turns shared memory off,
/// and a port cannot be bound again after a restart. Called for each context; changes the
/// environment of the process, so make the first one while no other thread reads it.
/// @param transports those in use, as UCX_TLS says it
void prepare_environment(std::string_view transports);

/// ucp_context_h.
class context {
public:
  /// @errors io_failure, unsupported: no such transport or device
  [[nodiscard]] static result<context> make(const lane_choice& lanes);
  [[nodiscard]] ucp_context_h get() const noexcept { return context_.get(); }
  /// The transports and devices that rule, "posix,cma,tcp on lo".
  [[nodiscard]] const std::string& lanes() const noexcept { return lanes_; }
  /// Gives the context up without cleaning up, with a worker that cannot be destroyed.
  void leak() noexcept { static_cast<void>(context_.release()); }

private:
  struct cleanup {
    void operator()(ucp_context_h c) const noexcept { ucp_cleanup(c); }
  };
  std::unique_ptr<std::remove_pointer_t<ucp_context_h>, cleanup> context_;
  std::string lanes_;
};

/// ucp_worker_h, with its file descriptor to sleep on.
class worker {
public:
  /// @errors io_failure; unsupported: the header of a message does not fit into a frame
  [[nodiscard]] static result<worker> make(const context& in, std::size_t header_bytes);
  [[nodiscard]] ucp_worker_h get() const noexcept { return worker_.get(); }
  /// Readable when there is something to progress, after arm().
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  /// @return false when there is something to progress already
  [[nodiscard]] bool arm() noexcept;
  /// Gives the worker up: destroying one with operations in flight aborts the process.
  void leak() noexcept { static_cast<void>(worker_.release()); }

private:
  struct destroy {
    void operator()(ucp_worker_h w) const noexcept { ucp_worker_destroy(w); }
  };
  std::unique_ptr<std::remove_pointer_t<ucp_worker_h>, destroy> worker_;
  int descriptor_ = -1;
};

/// ucp_listener_h.
struct destroy_listener {
  void operator()(ucp_listener_h l) const noexcept { ucp_listener_destroy(l); }
};
using listener = std::unique_ptr<std::remove_pointer_t<ucp_listener_h>, destroy_listener>;

} // namespace troupe::net::ucx
