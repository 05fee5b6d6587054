#pragma once

#include "actors/membership/messages.hpp"
#include "troupe/base/clock.hpp"
#include "troupe/transport/node_id.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace troupe::actors {

/// One node of the cluster file.
struct roster_node {
  std::string name;
  net::address where;
};

/// How another process stands to this one.
enum class member_state_kind : std::uint8_t { connecting, up, down, refused };

/// Another process as this one sees it.
struct member_view {
  std::string name;
  net::address where;
  member_state_kind state = member_state_kind::connecting;
  /// Why it is not up, or what else is amiss.
  std::string note;
  time_point since{};
  /// The last one, kept when the node is down; nothing before the first.
  std::optional<node_card> card;
  /// The wire to it; only while it is up.
  net::peer_stats wire;

  [[nodiscard]] bool up() const noexcept { return state == member_state_kind::up; }
  /// What `troupe status` says of it.
  [[nodiscard]] std::string state_text() const;
};

/// The other processes of the cluster, by name.
struct roster_view {
  std::vector<member_view> members;
  /// Why this process must end, if it must.
  std::optional<error> end;
};

/// Who belongs to the cluster, who is there, and whom to dial: a pure state machine. Events come
/// in, with the time; whom to dial and what to show come out.
class roster {
public:
  struct options {
    /// This process.
    roster_node self;
    std::uint64_t incarnation = 0;
    /// All nodes of the file, this one included.
    std::vector<roster_node> nodes;
  };
  explicit roster(options what);

  /// The addresses to dial now. Each is dialled until dialed() says how that went.
  [[nodiscard]] std::vector<net::address> due(time_point now);
  void dialed(const net::address& where, const error& why, time_point now);

  void came_up(const std::string& name, const net::address& where, time_point now);
  void went_down(const std::string& name, const error& why, time_point now);
  void refused(const std::string& name, const net::address& where, const error& why,
               time_point now);
  /// Whether a process that was declared dead, or declared us so, may return as it is: what passed
  /// over the connection that was given up is over at both ends, and nothing of it comes late. A
  /// stage has dropped what that front asked of it, the front goes on elsewhere.
  [[nodiscard]] bool forgives(const std::string& name) const;
  /// Others know this node.
  void heard(const std::string& name, const net::address& where, time_point now);
  /// @param clock_ms this process's wall clock
  void take(const node_card& card, const node_card& own, std::int64_t clock_ms);
  void measure(const std::vector<net::peer_stats>& stats);

  /// The members; clients of the wire, which never show a card, are none.
  [[nodiscard]] roster_view view() const;

private:
  struct member {
    member_view seen;
    bool of_file = false;
    bool dialling = false;
    /// Its refusal was shown, which says more than the end of the dial.
    bool told = false;
    std::chrono::milliseconds delay{};
    time_point next_dial{};
    /// It is refused as one that was declared dead, or declares us so.
    bool fenced = false;
  };

  [[nodiscard]] member* find(const std::string& name, const net::address& where);
  void set(member& of, member_state_kind state, std::string note, time_point now);
  void try_later(member& of, time_point now);

  options options_;
  std::map<std::string, member> members_;
  std::optional<error> end_;
};

} // namespace troupe::actors
