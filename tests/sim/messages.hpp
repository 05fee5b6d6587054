#pragma once

#include "engine/kv/messages.hpp"
#include "engine/route/replica_table.hpp"
#include "troupe/base/error.hpp"
#include "troupe/engine/request.hpp"

#include <cstdint>
#include <optional>
#include <variant>

/// What fronts and stages send each other, as the actors do.
namespace troupe::sim {

/// front -> stage, first of all: the hub that chunks are to be sent to.
struct attach_message {
  hub_id hub{};
};
/// Meant for one life of the replica, as a message to an actor's handle is.
struct dispatch_message {
  replica_id replica{};
  std::uint64_t incarnation = 0;
  engine::submission request;
};
struct cancel_message {
  replica_id replica{};
  std::uint64_t incarnation = 0;
  request_id id{};
};
struct snapshot_message {
  replica_id replica{};
};
/// The front has taken an index report: the next one may come.
struct index_taken_message {
  replica_id replica{};
};

/// stage -> front: a replica serves, anew or for the first time.
struct joined_message {
  engine::replica_facts facts;
};
struct draining_message {
  replica_id replica{};
};
/// A replica serves no more, though its node lives: it drained, or its scheduler died.
struct left_message {
  replica_id replica{};
  bool drained = false;
};
/// The answer to a dispatch.
struct verdict_message {
  replica_id replica{};
  request_id id{};
  std::uint32_t attempt = 0;
  std::optional<error> refused;
};
struct load_message {
  replica_id replica{};
  engine::replica_load load;
};

using message =
    std::variant<attach_message, dispatch_message, cancel_message, snapshot_message,
                 index_taken_message, joined_message, draining_message, left_message,
                 verdict_message, load_message, engine::token_batch, engine::kv_index_report>;

} // namespace troupe::sim
