#pragma once

#include "transport/mesh.hpp"
#include "transport/ucx/context.hpp"
#include "transport/ucx/endpoint.hpp"
#include "transport/ucx/resolve.hpp"
#include "troupe/transport/buffer_pool.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace troupe::net::ucx {

/// Links over UCX endpoints: the network below the mesh of one node. All calls are made under the
/// lock of the node; UCX calls back from inside progress().
///
/// Inside a callback frames may be sent, but endpoints are only marked: what broke is told to the
/// mesh, and what ends takes its next step, after ucp_worker_progress has returned.
class driver final : public link_driver {
public:
  explicit driver(const process_identity& here) : here_{here} {}
  ~driver() override;

  /// Makes context and worker. @errors unsupported, io_failure
  [[nodiscard]] result<void> start(const lane_choice& lanes);
  /// What arrives goes here. Called before anything else happens.
  void serve(mesh& above) noexcept { mesh_ = &above; }
  /// @errors io_failure: port taken, bad host
  [[nodiscard]] result<address> listen(const address& where);
  /// Makes a looked up name known, for the dial that follows.
  void learn(const address& where, const socket_address& found) { names_[where.host] = found; }

  /// Lets UCX work, then tells the mesh what broke. @return true when something happened
  bool progress(time_point now);
  /// Some endpoint is on its way out, so progress() is wanted soon.
  [[nodiscard]] bool is_closing() const noexcept { return !closing_.empty(); }
  /// Something broke in a call that was not made by progress().
  [[nodiscard]] bool is_pressing() const noexcept { return !broken_.empty(); }
  /// Payloads wait that this thread copies itself.
  [[nodiscard]] bool has_copies() const noexcept {
    return std::any_of(waiting_.begin(), waiting_.end(),
                       [](const auto& line) { return !line.second.empty(); });
  }
  /// Sends that UCX has not completed.
  [[nodiscard]] std::uint64_t sends_open() const noexcept { return sends_open_; }
  /// Steps the ends of all endpoints up to a deadline; then destroys what can be destroyed.
  void shut_down(time_point deadline);

  [[nodiscard]] int descriptor() const noexcept { return worker_.descriptor(); }
  [[nodiscard]] bool arm() noexcept { return worker_.arm(); }
  [[nodiscard]] const buffer_pool& pool() const noexcept { return pool_; }
  [[nodiscard]] std::uint64_t malformed() const noexcept { return malformed_; }
  [[nodiscard]] std::size_t endpoints() const noexcept { return links_.size() + closing_.size(); }

  void open(link_id link, const address& where) override;
  sending transmit(link_id link, outgoing_frame frame) override;
  void close(link_id link, parting how) override;
  void suspect(link_id link, const process_identity& peer) override;
  void came_up(link_id link, const process_identity& peer) override;
  [[nodiscard]] duration gathers(link_id link) const override;
  [[nodiscard]] std::string lanes(link_id link) const override;

private:
  /// The id of UCX's active message that carries frames.
  static constexpr unsigned frames_id = 7;
  /// What may come in before it is handed on: as much as stays in a core's cache.
  static constexpr std::uint64_t turn_bytes = std::uint64_t{256} << 10;

  struct receive_op;
  using endpoint_ref = std::shared_ptr<endpoint>;
  /// A frame that UCX works on.
  struct send_op {
    driver& self;
    endpoint_ref over;
    outgoing_frame frame;
  };
  /// A payload that UCX can bring from its sender's memory.
  struct waiting_payload {
    frame_header header;
    std::vector<std::byte> meta;
    void* data = nullptr;
  };
  /// Buffers that a process may still read though its connection is over.
  struct quarantined {
    process_identity reader;
    outgoing_frame frame;
  };
  struct broken_link {
    link_id link;
    error why;
  };

  static void on_sent(void* request, ucs_status_t status, void* op);
  static void on_received(void* request, ucs_status_t status, std::size_t bytes, void* op);
  static void on_error(void* self, ucp_ep_h handle, ucs_status_t status);
  static void on_dialled(ucp_conn_request_h request, void* self);

  void accept(ucp_conn_request_h request);
  ucs_status_t take(std::span<const std::byte> head, void* data, std::size_t bytes,
                    const ucp_am_recv_param_t& how);
  void fetch(const endpoint_ref& over, const waiting_payload& what);
  void fetch_next();
  void drop_waiting(link_id link);
  void received(receive_op& op);
  void sent(send_op& op, ucs_status_t status);
  result<ucp_ep_h> connect(const address& where);
  void broke(link_id link, error why);
  bool tell_broken(time_point now);
  bool step_closing(time_point now);
  void release_quarantine(time_point now);
  [[nodiscard]] endpoint_ref find(link_id link) const;

  process_identity here_;
  context context_;
  worker worker_;
  listener listener_;
  buffer_pool pool_;
  mesh* mesh_ = nullptr;
  std::unordered_map<link_id, endpoint_ref> links_;
  std::unordered_map<ucp_ep_h, endpoint_ref> handles_;
  std::vector<endpoint_ref> closing_;
  /// Those that do not end. UCX may still call back for them.
  std::vector<endpoint_ref> stuck_;
  std::vector<broken_link> broken_;
  /// Payloads that wait in their senders' memory, by link, each for the one before it.
  std::unordered_map<link_id, std::deque<waiting_payload>> waiting_;
  std::vector<link_id> lines_;
  /// When progress() was called, which is when its callbacks say that things happened, and what
  /// came since.
  time_point now_{};
  std::uint64_t bytes_in_ = 0;
  /// What the last send needed, when UCX was done with it at once.
  std::unique_ptr<send_op> spare_;
  std::deque<quarantined> quarantine_;
  time_point next_release_{};
  std::unordered_map<std::string, socket_address> names_;
  std::uint64_t sends_open_ = 0;
  std::uint64_t malformed_ = 0;
  bool shared_memory_wanted_ = false;
  bool leaks_ = false;
};

} // namespace troupe::net::ucx
