#pragma once

#include "transport/inproc/network.hpp"
#include "transport/mesh.hpp"

#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace troupe::net::inproc {

/// One node of the simulated network: the driver below its mesh and the transport above it.
class node final : public transport, private link_driver {
public:
  node(network& net, node_options options, handler& user);

  [[nodiscard]] const identity& self() const noexcept override {
    return mesh_.settings().options.self;
  }
  [[nodiscard]] result<address> listen(const address& where) override;
  [[nodiscard]] dial_id dial(const address& where) override;
  [[nodiscard]] result<std::uint64_t> send(const node_id& to, std::span<const std::byte> header,
                                           shared_bytes payload, pressure how) override;
  void drain(const node_id& peer) override;
  void close(const node_id& peer) override;
  void forgive(const node_id& peer) override { mesh_.forgive(peer); }
  void post(std::function<void()> job) override;
  [[nodiscard]] std::vector<peer_stats> stats() const override { return mesh_.stats(); }
  void stop() override;

private:
  friend class network;

  /// A link, seen by both its ends: side 0 dialled.
  struct cable {
    std::array<node*, 2> ends{};
    std::array<link_id, 2> link{};
    bool accepted = false;
    /// The end is closed: nothing arrives there, and what it had under way is dropped or not.
    std::array<bool, 2> closed{};
    std::array<bool, 2> dropped{};
    std::array<std::uint32_t, 2> under_way{};
  };
  struct plug {
    std::shared_ptr<cable> to;
    std::size_t side = 0;
  };
  using frame_ref = std::shared_ptr<const outgoing_frame>;

  void open(link_id link, const address& where) override;
  sending transmit(link_id link, outgoing_frame frame) override;
  void close(link_id link, parting how) override;
  void suspect(link_id, const process_identity&) override {}
  [[nodiscard]] std::string lanes(link_id) const override { return "inproc"; }

  void accept(const std::shared_ptr<cable>& from);
  void arrive(const std::shared_ptr<cable>& on, std::size_t side, const frame_ref& frame);
  void take(const plug& at, const outgoing_frame& frame);
  void far_end_closed(const std::shared_ptr<cable>& on, std::size_t side, const std::string& note);
  /// Breaks the links to one node, or to all.
  void break_links(const node* peer, const std::string& note);
  /// Hands events and jobs to the user until there are none.
  void settle();
  [[nodiscard]] bool runs() const noexcept { return !dead_ && !stopped_; }

  network& net_;
  handler& user_;
  admission door_;
  buffer_pool pool_;
  mesh mesh_;
  address listens_at_;
  std::map<link_id, plug> links_;
  std::vector<std::function<void()>> jobs_;
  std::uint64_t next_dial_ = 1;
  bool dead_ = false;
  bool stopped_ = false;
  bool settling_ = false;
  std::vector<std::function<void(node&)>> backlog_;
};

} // namespace troupe::net::inproc
