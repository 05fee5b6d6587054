#pragma once

#include "troupe/base/error.hpp"
#include "troupe/transport/transport.hpp"

#include <caf/all.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

/// CAF's actors over UCX. Any CAF 0.17 program loads one module and nothing else of Troupe:
///
///   caf::actor_system_config cfg;
///   cfg.load<troupe::net::wire>();
///   caf::actor_system sys{cfg};
///   auto& wire = troupe::net::wire::of(sys);
///   wire.publish("greeter", greeter);                    // here
///   auto node = wire.connect({"10.0.0.1", 7600});        // elsewhere
///   auto greeter = wire.lookup(*node, "greeter");
///
/// Handles then work as they do locally: request and response, monitors, links, exits, handles
/// inside messages, typed or not. Works with or without caf::io in the same program.
namespace troupe::net {

namespace seam {
class host;
}

/// What happened to a peer; see wire::observe().
struct wire_event {
  enum class kind : std::uint8_t {
    /// Connected: it has said who it is, and messages go both ways.
    up,
    /// The end of a connection; `why` is errc::draining when it was agreed on.
    down,
    /// A hello was refused, here or there. peer_down: one of the two had declared the other dead.
    refused,
    /// Another peer knows this node.
    heard,
  };
  kind what = kind::up;
  /// As the peer calls itself; empty when that is not known.
  std::string name;
  /// Where it listens; port 0 when it does not.
  address where;
  /// With up and down.
  caf::node_id node;
  /// With refused, if it is known: whom to forgive().
  node_id peer;
  error why;
};

/// The module. Settings are read from the group "wire" of the configuration, from its file or by
/// `caf::put(cfg.content, "wire.name", name)`:
///
///   name          a name for logs and for peers; unique among live nodes (default: the node id)
///   secret-file   the secret of the cluster, in a file that only its owner can read. Without one,
///                 the node listens at loopback addresses alone
///   transports, devices          see ucx::lane_choice
///   spin-us       how long the progress thread looks for work before it sleeps (50)
///   heartbeat-ms, dead-after-ms  200, 1000
///   dial-timeout-ms              5000
///   queue-bytes, window-bytes, message-bytes   see net::limits
///   check-types   nodes with other message types of their own are refused (true). false: types
///                 travel by name, which costs some 10 to 40 bytes each
///   full-queue    what becomes of a message without an answer above queue-bytes: "drop", or "keep"
///                 (drop)
///   run-inline    actors that a message wakes run on the progress thread: the least latency, for
///                 programs whose handlers are short (false; see also wire::run_inline)
///
/// What is bounded: above queue-bytes for one peer a request is answered with errc::busy, and a
/// message without an answer is dropped and counted (messages_dropped), or kept: for programs whose
/// messages are bounded by the requests that they belong to, where a loss is worse than memory. A
/// peer that takes nothing for dead-after-ms is gone, and its queue with it. Answers, exits and
/// what belongs to monitors and links are never dropped while the peer is up.
///
/// A peer is gone for good when its connection ends without a disconnect(): proxies end with
/// exit_reason::remote_link_unreachable, every open request is answered with that error, and the
/// same incarnation is not let in again, unless both forgive(). A process that was started anew is
/// a new node.
class wire final : public caf::actor_system::module {
public:
  static caf::actor_system::module* make(caf::actor_system& sys, caf::detail::type_list<>);
  /// The module of a system that has loaded it. @pre loaded
  [[nodiscard]] static wire& of(caf::actor_system& sys);

  /// Parts of a configuration that all nodes must agree on, by name; a refusal says which differ. A
  /// node that names none agrees with all. Call it before the actor system is made.
  static void agree_on(caf::actor_system_config& cfg, const std::vector<config_part>& parts);

  explicit wire(caf::actor_system& sys);
  ~wire() override;

  /// Accepts peers; port 0 takes a free one. @return where it listens
  /// @errors errc::unauthorized: no secret; io_failure: port taken
  [[nodiscard]] caf::expected<address> listen(const address& where);
  /// Connects to a node that listens. Blocks; not inside an actor that runs inline.
  /// @errors what the two ends could not agree on, or errc::peer_down, timed_out, not_found
  [[nodiscard]] caf::expected<caf::node_id>
  connect(const address& where, std::chrono::milliseconds limit = std::chrono::seconds{10});
  /// The same without waiting: `done` is called once, on the progress thread, and must not block.
  void connect(const address& where, std::function<void(const result<caf::node_id>&)> done);
  /// Ends a connection once all that was sent has been delivered.
  void disconnect(const caf::node_id& peer);
  /// Lets a peer that was declared dead return as the same incarnation, once it has forgiven this
  /// node too. What was lost with the old connection stays lost.
  void forgive(const node_id& peer);

  /// Lets others look an actor up by name; a later call with the name replaces it.
  template <class Handle>
  void publish(std::string name, const Handle& what) {
    publish_impl(std::move(name), caf::actor_cast<caf::strong_actor_ptr>(what),
                 system_.message_types(what));
  }
  void unpublish(const std::string& name);
  /// Asks a connected node for an actor. Blocks like connect().
  /// @errors errc::not_found; conflict: the actor has another type; peer_down; timed_out
  template <class Handle = caf::actor>
  [[nodiscard]] caf::expected<Handle>
  lookup(const caf::node_id& at, const std::string& name,
         std::chrono::milliseconds limit = std::chrono::seconds{10}) {
    auto found = lookup_impl(at, name, system_.message_types<Handle>(), limit);
    if (!found)
      return std::move(found.error());
    return caf::actor_cast<Handle>(std::move(*found));
  }

  /// The same without waiting: `done` is called once, on the progress thread, unless the question
  /// cannot even be sent, and must not block.
  template <class Handle = caf::actor>
  void lookup(const caf::node_id& at, const std::string& name,
              std::function<void(const result<Handle>&)> done) {
    lookup_impl(at, name, system_.message_types<Handle>(),
                [done = std::move(done)](const result<caf::strong_actor_ptr>& found) {
                  done(found.map([](caf::strong_actor_ptr who) {
                    return caf::actor_cast<Handle>(std::move(who));
                  }));
                });
  }

  /// Tells `user` from now on what happens to peers; an empty function ends that. Called on the
  /// progress thread: it must not block.
  void observe(std::function<void(const wire_event&)> user);

  /// From now on a message from the wire runs this actor at once on the progress thread, if it was
  /// idle. For actors whose handlers are short and never block: all peers wait meanwhile.
  void run_inline(const caf::actor_addr& who);

  /// A row for each connected peer: lanes, round trip, bytes, queue, credit.
  [[nodiscard]] std::vector<peer_stats> stats() const;
  /// Messages without an answer that a full queue turned away.
  [[nodiscard]] std::uint64_t messages_dropped() const;
  /// Handles of remote actors that this node keeps.
  [[nodiscard]] std::size_t proxies(const caf::node_id& peer) const;

  void init(caf::actor_system_config& cfg) override;
  void start() override;
  void stop() override;
  [[nodiscard]] id_t id() const override { return network_manager; }
  [[nodiscard]] void* subtype_ptr() override { return this; }

private:
  void publish_impl(std::string name, caf::strong_actor_ptr what, std::set<std::string> type);
  [[nodiscard]] caf::expected<caf::strong_actor_ptr> lookup_impl(const caf::node_id& at,
                                                                 const std::string& name,
                                                                 const std::set<std::string>& type,
                                                                 std::chrono::milliseconds limit);
  void lookup_impl(const caf::node_id& at, const std::string& name, std::set<std::string> type,
                   std::function<void(const result<caf::strong_actor_ptr>&)> done);

  caf::actor_system& system_;
  std::unique_ptr<seam::host> host_;
  /// Why there is no host.
  error failure_;
};

/// A message may hold shared_bytes: above a few KiB they travel out of band, without a copy through
/// the serialiser on either side, and what arrives is the receive buffer itself. With any other
/// serialiser they are written inline.
caf::error inspect(caf::serializer& sink, shared_bytes& x);
caf::error inspect(caf::deserializer& source, shared_bytes& x);
[[nodiscard]] std::string to_string(const shared_bytes& x);

/// An operating error as CAF's type, category "troupe".
[[nodiscard]] caf::error to_caf_error(const error& e);

} // namespace troupe::net
