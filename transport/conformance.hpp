#pragma once

#include "troupe/transport/transport.hpp"

#include <catch2/catch.hpp>

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// Test support: what every transport must do, as checks of Catch2.
namespace troupe::net::test {

/// Writes down what a transport tells. Thread-safe.
class recorder final : public handler {
public:
  struct received {
    node_id from;
    std::vector<std::byte> header;
    shared_bytes payload;
  };
  struct ended {
    peer_facts peer;
    error why;
  };
  struct answered {
    dial_id dial{};
    result<node_id> outcome;
  };
  /// All that happened so far.
  struct notes {
    std::vector<peer_facts> up;
    std::vector<ended> down;
    std::vector<received> messages;
    std::vector<answered> dialed;
    std::vector<ended> refused;
    std::vector<known_node> heard;
    std::size_t drained = 0;
    /// Messages that came without a peer that was up, or other breaches of the contract.
    std::vector<std::string> breaches;
  };

  void peer_up(const peer_facts& peer) override;
  void peer_down(const peer_facts& peer, const error& why) override;
  void message(const node_id& from, std::span<const std::byte> header,
               shared_bytes payload) override;
  void drained(const node_id& to) override;
  void dialed(dial_id dial, const address& where, const result<node_id>& outcome) override;
  void refused(const peer_facts& who, const error& why) override;
  void heard_of(const known_node& other) override;

  [[nodiscard]] notes copy() const;
  /// Looks at the notes while nothing is added.
  template <class F>
  auto with(F look) const {
    const std::lock_guard guard{mutex_};
    return look(notes_);
  }
  void forget_messages();
  /// Called for each message, after it was noted, without a lock.
  std::function<void(const received&)> on_message;

private:
  mutable std::mutex mutex_;
  notes notes_;
  std::vector<node_id> now_up_;
};

/// Some nodes on one network, and its time.
class world {
public:
  virtual ~world() = default;
  [[nodiscard]] virtual std::unique_ptr<transport> add(node_options options, handler& user) = 0;
  /// Lets things happen until `done` holds. @return false when `limit` passed first
  virtual bool wait(const std::function<bool()>& done, duration limit) = 0;
  /// Receive buffers of a node that have owners.
  [[nodiscard]] virtual std::uint64_t buffers_out(const transport& of) const = 0;
  /// An address where nobody listens, and one to listen at.
  [[nodiscard]] virtual address nowhere() const = 0;
  [[nodiscard]] virtual address anywhere() const = 0;
};

struct conformance_check {
  std::string_view name;
  void (*run)(world& in);
};

/// Every check of the suite; each wants a fresh world.
[[nodiscard]] std::span<const conformance_check> conformance_checks();

/// Options of a node for tests: named, with the same config and secret for all.
[[nodiscard]] node_options options_of(std::string_view name);
/// `size` bytes that depend on `seed`.
[[nodiscard]] std::vector<std::byte> noise(std::size_t size, std::uint64_t seed);

/// Sizes that meet every protocol of the network below, in an order of their own.
[[nodiscard]] std::vector<std::size_t> mixed_sizes(std::uint64_t seed);

/// A node with its recorder.
struct station {
  station(world& in, node_options options);
  station(world& in, std::string_view name) : station{in, options_of(name)} {}
  ~station();
  station(const station&) = delete;
  station& operator=(const station&) = delete;

  [[nodiscard]] const node_id& id() const { return net->self().id; }
  /// Listens at a free port.
  address listen();
  /// Dials and waits for the outcome.
  result<node_id> connect(const address& where);

  world& in;
  recorder heard;
  std::unique_ptr<transport> net;
};

} // namespace troupe::net::test

/// How a failed check shows the outcome of a dial.
template <>
struct Catch::StringMaker<troupe::result<troupe::net::node_id>> {
  static std::string convert(const troupe::result<troupe::net::node_id>& outcome) {
    return outcome ? to_string(*outcome) : to_string(outcome.error());
  }
};
template <>
struct Catch::StringMaker<troupe::net::node_id> {
  static std::string convert(const troupe::net::node_id& id) { return to_string(id); }
};
