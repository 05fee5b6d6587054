#pragma once

#include "troupe/transport/transport.hpp"

#include <chrono>
#include <memory>
#include <string>

/// The real network: UCX under the contract of transport.hpp. No header of UCX is needed to use it.
namespace troupe::net::ucx {

/// Which of UCX's transports and devices to use. What the operator has set in UCX_TLS and
/// UCX_NET_DEVICES comes first; an empty text leaves the choice to UCX.
struct lane_choice {
  /// tcp must stay: UCX makes its connections with it, whatever carries the messages.
  std::string transports = "posix,cma,tcp";
  /// "lo" keeps everything on this machine; UCX would otherwise spread a connection over several
  /// devices.
  std::string devices;
};

struct options {
  /// An id of 0 is drawn at random, as it should be.
  node_options node;
  lane_choice lanes;
  /// How long the progress thread looks for work before it sleeps. 0 sleeps at once: right where
  /// compute threads own all cores.
  duration spin = std::chrono::microseconds{50};
  /// Cores to count on; 0 asks the machine. With four or more a second thread calls the user while
  /// the progress thread copies payloads.
  unsigned cores = 0;
};

/// Starts a node with its progress thread.
///
/// Nothing is encrypted: the secret keeps strangers out, not eavesdroppers. Use private networks.
/// UCX_* variables that UCX 1.13 reads only from the environment are set in this process, where the
/// operator has not set them; so make the first node before other threads read the environment.
/// @param user outlives the node; called on the progress thread or, while that copies payloads, on
///        its courier, by one of them at a time
/// @errors unsupported: no such lanes here; io_failure
[[nodiscard]] result<std::unique_ptr<transport>> make(options how, handler& user);

} // namespace troupe::net::ucx
