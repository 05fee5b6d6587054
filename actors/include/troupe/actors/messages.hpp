#pragma once

/// The messages that a program outside Troupe exchanges with a running cluster, and the handles of
/// the actors that take them. Register them with add_messages() before the actor system starts.

#include "troupe/actors/compat.hpp"
#include "troupe/base/ids.hpp"
#include "troupe/engine/request.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::engine {

TROUPE_INSPECT(sampling_params, temperature, top_k, top_p, min_p, seed, choice, max_tokens,
               ignore_eos, eos_token_ids, stop_token_ids, logprobs)
TROUPE_INSPECT(ranked_token, token, logprob)
TROUPE_INSPECT(token_logprobs, chosen, rank, top)
TROUPE_INSPECT(sink_address, hub, stream)
TROUPE_INSPECT(submission, id, model, prompt, sampling, sink, timeout, attempt, delivered, priority,
               cache_salt)
TROUPE_INSPECT(token_chunk, request, stream, attempt, offset, ids, logprobs, finish, stop_token,
               cached_tokens, why, note)
TROUPE_INSPECT(token_batch, replica, chunks)

} // namespace troupe::engine

namespace troupe::actors {

/// The answer to a submission that was taken.
struct accepted {
  /// The id that the router gave; all chunks carry it, and a cancel names it.
  request_id id{};
  /// The replica that serves it first.
  replica_id replica{};
};
TROUPE_INSPECT(accepted, id, replica)

/// One replica as `troupe status` shows it.
struct replica_status {
  std::string model;
  std::uint64_t version = 1;
  replica_id replica{};
  std::string node;
  /// "loading", "ready", "failed", "restarting" or "draining"; "down" with its node.
  std::string state;
  std::uint32_t running = 0;
  std::uint32_t waiting = 0;
  std::uint32_t blocks_used = 0;
  std::uint32_t blocks_total = 0;
  std::uint64_t prompt_tokens = 0;
  std::uint64_t generation_tokens = 0;
  std::uint64_t restarts = 0;
};
TROUPE_INSPECT(replica_status, model, version, replica, node, state, running, waiting, blocks_used,
               blocks_total, prompt_tokens, generation_tokens, restarts)

/// One node as `troupe status` shows it.
struct node_status {
  std::string name;
  std::string address;
  /// "up", "draining" or "drained"; of others also "connecting", "down" or "refused".
  std::string state;
  /// Why it is down or refused, or what else is amiss.
  std::string note;
  std::uint64_t uptime_s = 0;
  /// Seconds that it has been in this state.
  std::uint64_t since_s = 0;
  /// The wire to it; empty and 0 for the node that answers.
  std::string lanes;
  std::uint64_t round_trip_us = 0;
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
};
TROUPE_INSPECT(node_status, name, address, state, note, uptime_s, since_s, lanes, round_trip_us,
               bytes_sent, bytes_received)

struct cluster_status {
  std::string cluster;
  std::vector<node_status> nodes;
  std::vector<replica_status> replicas;
};
TROUPE_INSPECT(cluster_status, cluster, nodes, replicas)

} // namespace troupe::actors

CAF_ADD_ATOM(troupe_api, troupe::actors, submit_atom, "submit")
CAF_ADD_ATOM(troupe_api, troupe::actors, cancel_atom, "cancel")
CAF_ADD_ATOM(troupe_api, troupe::actors, status_atom, "status")

namespace troupe::actors {

/// Takes the tokens of its streams: one message per step with the chunks of all of them.
using token_sink = caf::typed_actor<TROUPE_TAKES(engine::token_batch)>;

/// The router of a front process. `submit` with a sink in this process is answered `accepted` or an
/// error (not_found: no such model; busy: a queue is full; invalid_argument; draining); the sink
/// then gets chunks until one with a finish reason. A sink that dies cancels its streams.
/// The id and the sink address of a submission are given by the router; what stands there is
/// ignored.
using router_actor =
    caf::typed_actor<TROUPE_ANSWERS(accepted, submit_atom, engine::submission, token_sink),
                     TROUPE_TAKES(cancel_atom, request_id),
                     TROUPE_ANSWERS(cluster_status, status_atom)>;

} // namespace troupe::actors

CAF_BEGIN_TYPE_ID_BLOCK(troupe_api, caf::first_custom_type_id + 1000)
CAF_ADD_TYPE_ID(troupe_api, (troupe::request_id))
CAF_ADD_TYPE_ID(troupe_api, (troupe::engine::submission))
CAF_ADD_TYPE_ID(troupe_api, (troupe::engine::token_batch))
CAF_ADD_TYPE_ID(troupe_api, (troupe::actors::accepted))
CAF_ADD_TYPE_ID(troupe_api, (troupe::actors::cluster_status))
CAF_ADD_TYPE_ID(troupe_api, (troupe::actors::token_sink))
CAF_ADD_TYPE_ID(troupe_api, (troupe::actors::router_actor))
CAF_END_TYPE_ID_BLOCK(troupe_api)

namespace troupe::actors {

/// The name under which a front process with an address publishes its router on the wire: connect()
/// to the node, then lookup<router_actor>(node, router_name).
inline constexpr auto router_name = "troupe.router";

/// Registers every message of Troupe. Call it in the constructor of one's actor_system_config.
void add_messages(caf::actor_system_config& config);

} // namespace troupe::actors
