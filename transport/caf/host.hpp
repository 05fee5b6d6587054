#pragma once

#include "transport/caf/peer.hpp"
#include "transport/caf/runner.hpp"
#include "transport/caf/settings.hpp"
#include "troupe/transport/caf.hpp"
#include "troupe/transport/ucx.hpp"

#include <caf/proxy_registry.hpp>

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace troupe::net::seam {

/// A message of CAF on its way to a remote actor; borrowed during the call.
struct outgoing {
  const caf::strong_actor_ptr& from;
  const std::vector<caf::strong_actor_ptr>* stages = nullptr;
  caf::actor_id to = 0;
  caf::message_id id;
  const caf::type_erased_tuple* content = nullptr;
};

/// An actor that others may look up, with the type that they are told.
struct published {
  caf::strong_actor_ptr who;
  std::set<std::string> type;
};

/// One actor system on the wire: turns CAF's messages into the transport's and back.
///
/// Order of locks: CAF's, then those of this class, then the transport's; never the other way.
class host final : public handler, public caf::proxy_registry::backend {
public:
  host(caf::actor_system& sys, settings how);
  ~host() override;

  [[nodiscard]] result<void> start();
  void stop();

  [[nodiscard]] result<address> listen(const address& where);
  using connect_done = std::function<void(const result<caf::node_id>&)>;
  using lookup_done = std::function<void(const result<published>&)>;

  void connect(const address& where, connect_done done);
  [[nodiscard]] result<caf::node_id> connect(const address& where, std::chrono::milliseconds limit);
  void disconnect(const caf::node_id& node);
  void forgive(const node_id& peer);
  void publish(const std::string& name, published what);
  void unpublish(const std::string& name);
  /// @return the number of the question, for give_up()
  std::uint64_t lookup(const caf::node_id& at, const std::string& name, lookup_done done);
  [[nodiscard]] result<published> lookup(const caf::node_id& at, const std::string& name,
                                         std::chrono::milliseconds limit);
  void observe(std::function<void(const wire_event&)> user);
  void run_inline(caf::actor_id who) { runner_.run_inline(who); }
  [[nodiscard]] std::vector<peer_stats> stats() const { return net_->stats(); }
  [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }
  [[nodiscard]] std::size_t proxies(const caf::node_id& node) const {
    return proxies_.count_proxies(node);
  }

  // For proxies and watches.
  void send(peer& to, const outgoing& what);
  /// Answers a request with an error; anything else is dropped.
  void bounce(const outgoing& what, const caf::error& why);
  /// Tells a node that watches it how an actor of ours ended.
  void tell_down(peer& to, caf::actor_id actor, const caf::error& reason);
  void link_later(const std::shared_ptr<peer>& to, verb what, caf::strong_actor_ptr observer,
                  caf::actor_id of);

  // handler
  void peer_up(const peer_facts& from) override;
  void peer_down(const peer_facts& from, const error& why) override;
  void message(const node_id& from, std::span<const std::byte> header,
               shared_bytes payload) override;
  void drained(const node_id& /*to*/) override {}
  void dialed(dial_id dial, const address& where, const result<node_id>& outcome) override;
  void refused(const peer_facts& who, const error& why) override;
  void heard_of(const known_node& other) override;

  // proxy_registry::backend, called under the registry's mutex
  caf::strong_actor_ptr make_proxy(caf::node_id node, caf::actor_id actor) override;
  void set_last_hop(caf::node_id* /*hop*/) override {}

private:
  using peer_ref = std::shared_ptr<peer>;
  /// Somebody waits in connect(), or a proxy waits for its node.
  struct dialling {
    connect_done done;
    peer_ref wanted;
  };
  struct question {
    peer_ref at;
    lookup_done done;
  };

  [[nodiscard]] peer_ref peer_of(const caf::node_id& node);
  [[nodiscard]] peer_ref peer_at(const node_id& connection) const;
  [[nodiscard]] caf::error serialise(const outgoing& what, envelope& outside, content& inside);
  result<void> dispatch(peer& to, parcel what, pressure how);
  void send_small(peer& to, const envelope& outside, std::vector<char> stream = {});
  void withhold(peer& to, const outgoing& what, caf::error why);
  void dial_for(const peer_ref& wanted, const address& where);
  void settle(const dialling& what, const result<caf::node_id>& outcome);
  void lost(const peer_ref& who);
  void forget(const peer_ref& who, caf::actor_id actor, caf::error reason);

  void on_intro(const node_id& from, const opened& in);
  void on_about(const opened& in);
  void on_message(peer& from, const opened& in);
  void deliver(peer& from, const opened& in, const caf::strong_actor_ptr& src);
  void on_monitor(const peer_ref& from, const opened& in);
  void on_down(const peer_ref& from, const opened& in);
  void on_link(peer& from, const opened& in);
  void on_lookup(peer& from, const opened& in);
  void on_found(peer& from, const opened& in);
  void on_bounce(peer& from, const opened& in);
  [[nodiscard]] bool settle_exit(peer& from, const caf::message& what,
                                 const caf::strong_actor_ptr& dst);
  void introduce(const node_id& to);
  void tell(const wire_event& what) const;
  /// The question, which is then nobody's any more.
  [[nodiscard]] lookup_done take_question(std::uint64_t number);
  [[nodiscard]] std::vector<char> place(caf::node_id node, address where);

  caf::actor_system& system_;
  const settings settings_;
  caf::proxy_registry proxies_;
  runner runner_;
  std::unique_ptr<transport> net_;
  std::atomic<bool> stopped_ = false;
  std::atomic<std::uint64_t> dropped_ = 0;
  std::atomic<std::uint64_t> next_question_ = 1;

  mutable std::mutex mutex_;
  address listens_at_;
  std::unordered_map<caf::node_id, peer_ref> peers_;
  std::unordered_map<node_id, peer_ref> connected_;
  /// What their hellos said.
  std::unordered_map<node_id, peer_facts> facts_;
  /// Where nodes listen that were told about, themselves included.
  std::unordered_map<caf::node_id, address> places_;
  std::map<dial_id, dialling> dials_;
  /// Dials that succeeded, and whose node has not said yet who it is.
  std::unordered_map<node_id, std::vector<dialling>> awaiting_intro_;
  std::map<std::uint64_t, question> questions_;
  std::function<void(const wire_event&)> observer_;
  std::map<std::string, published> published_;
  /// Remote actors whose end was told lately: what their links send now was said already.
  std::deque<std::pair<caf::node_id, caf::actor_id>> ended_;
};

} // namespace troupe::net::seam
