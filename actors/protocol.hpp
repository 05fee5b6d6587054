#pragma once

/// The messages inside Troupe: between router, schedulers, workers, kv_managers and the node. Each
/// can be serialised, so that any of these actors may live in another process.

#include "engine/exec/executor.hpp"
#include "engine/kv/messages.hpp"
#include "engine/request/step.hpp"
#include "engine/request/step_bytes.hpp"
#include "engine/route/replica_table.hpp"
#include "engine/sched/scheduler.hpp"
#include "troupe/actors/messages.hpp"
#include "troupe/config/load.hpp"
#include "troupe/transport/caf.hpp"

#include <memory>
#include <string>
#include <vector>

namespace troupe::engine {

/// Whether there is a value; it goes to `to`.
template <class T>
[[nodiscard]] bool take_into(T& to, result<T> from) {
  if (from)
    to = std::move(*from);
  return from.has_value();
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, step_batch& o) {
  return actors::inspect_packed(
      f, "step_batch", [&] { return pack_work(o); },
      [&](std::string_view bytes) { return unpack_work(bytes, o).has_value(); }, o.id, o.removed,
      o.added);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, step_result& o) {
  return actors::inspect_packed(
      f, "step_result", [&] { return pack_tokens(o.tokens); },
      [&](std::string_view bytes) { return take_into(o.tokens, unpack_tokens(bytes)); }, o.id,
      o.logprobs, o.failed, o.timings);
}

TROUPE_INSPECT(new_sequence, id, tokens, prompt_tokens, blocks, sampling)
TROUPE_INSPECT(row_logprobs, id, of)
TROUPE_INSPECT(failed_row, id, code, note)
TROUPE_INSPECT(step_timings, prepare, forward, sample, idle)
TROUPE_INSPECT(kv_admit, request, hashes, tokens, blocks_wanted)
TROUPE_INSPECT(kv_admitted, request, cached, granted, exhausted)
TROUPE_INSPECT(kv_want, blocks)
TROUPE_INSPECT(kv_grant, granted, exhausted)
TROUPE_INSPECT(committed_block, block, hash, parent, tokens)
TROUPE_INSPECT(kv_commit, step, blocks, contents_lost)
TROUPE_INSPECT(released_block, block, last_step)
TROUPE_INSPECT(kv_release, blocks)
TROUPE_INSPECT(kv_event, number, what, hash, parent)
TROUPE_INSPECT(kv_index_report, replica, incarnation, through, snapshot, stored, events)
TROUPE_INSPECT(replica_facts, id, model, node, numerics, batch_invariant, block_size, incarnation)
TROUPE_INSPECT(executor_description, kind, device, architecture, dtype, kv_cache_dtype, block_size,
               num_blocks, num_host_blocks, kv_bytes_per_block, weight_bytes, vocab_size,
               max_model_len, max_num_seqs, max_num_batched_tokens, batched_tokens_measured,
               batch_invariant, numerics)
TROUPE_INSPECT(memory_forecast, device, dtype, total_bytes, free_bytes, weight_bytes, work_bytes,
               kv_bytes_per_block, block_size, num_blocks, max_model_len)
TROUPE_INSPECT(scheduler_stats, running, waiting, steps_in_flight, blocks_used, blocks_total,
               swapped, host_blocks_used, host_blocks_total, steps, prompt_tokens,
               prompt_tokens_cached, generation_tokens, preemptions, blocks_saved, blocks_restored,
               tokens_recomputed, prefix_cache_queries, prefix_cache_hits, waiting_tokens)

} // namespace troupe::engine

namespace troupe::actors {

/// scheduler -> routers and node: what the replica has to do.
struct load_report {
  replica_id replica{};
  engine::scheduler_stats stats;
  /// Messages that wait in the scheduler's mailbox.
  std::uint64_t mailbox = 0;
  /// When the last step was completed, as an age; negative when none was yet.
  std::chrono::milliseconds last_step_age{-1};
};
TROUPE_INSPECT(load_report, replica, stats, mailbox, last_step_age)

/// kv_manager -> node.
struct kv_report {
  std::uint32_t free_blocks = 0;
  std::uint32_t total_blocks = 0;
  std::uint64_t mailbox = 0;
};
TROUPE_INSPECT(kv_report, free_blocks, total_blocks, mailbox)

} // namespace troupe::actors

CAF_ADD_ATOM(troupe_core, troupe::actors, load_atom, "load")
CAF_ADD_ATOM(troupe_core, troupe::actors, reset_atom, "reset")
CAF_ADD_ATOM(troupe_core, troupe::actors, tick_atom, "tick")
CAF_ADD_ATOM(troupe_core, troupe::actors, attach_atom, "attach")
CAF_ADD_ATOM(troupe_core, troupe::actors, detach_atom, "detach")
CAF_ADD_ATOM(troupe_core, troupe::actors, drain_atom, "drain")
CAF_ADD_ATOM(troupe_core, troupe::actors, kill_atom, "kill")

namespace troupe::actors {

/// The hub of a front process takes the chunks of a step exactly as a sink does.
using hub_actor = token_sink;

/// One rank: `load` blocks its own thread and is answered with what was loaded; every step is
/// answered with its result or an error; `reset` forgets all sequences; an answer to `status`
/// proves that no step hangs, and counts the messages that wait.
using worker_actor =
    caf::typed_actor<TROUPE_ANSWERS(engine::executor_description, load_atom),
                     TROUPE_ANSWERS(engine::step_result, engine::step_batch),
                     TROUPE_ANSWERS(void, reset_atom), TROUPE_ANSWERS(std::uint64_t, status_atom)>;

/// One exchange of one rank, on its way to another process.
struct rank_frame {
  std::uint32_t from = 0;
  std::uint64_t number = 0;
  std::uint64_t tag = 0;
  net::shared_bytes given;
};
TROUPE_INSPECT(rank_frame, from, number, tag, given)

/// Takes what other ranks give, and why a group has come to its end.
using rank_inbox =
    caf::typed_actor<TROUPE_TAKES(rank_frame), TROUPE_TAKES(detach_atom, caf::error)>;

/// The inboxes of all ranks of a group, by rank.
struct rank_peers {
  std::vector<rank_inbox> inboxes;
};
TROUPE_INSPECT(rank_peers, inboxes)

/// A rank's place in a group over several processes. `attach` makes it known to the others and is
/// answered with its worker.
using rank_seat_actor = rank_inbox::extend<TROUPE_ANSWERS(worker_actor, attach_atom, rank_peers)>;

/// Whom a rank belongs to. `drain`: the process of the rank is being emptied, so the replica takes
/// nothing new and lets its ranks go once it has ended what it has; `detach`: at once.
using rank_owner =
    caf::typed_actor<TROUPE_TAKES(drain_atom), TROUPE_TAKES(detach_atom, caf::error)>;

/// One rank of a replica, for the process that is to run it.
struct rank_order {
  std::string model;
  std::uint64_t version = 1;
  std::uint32_t rank = 0;
  /// The node and the device of every rank, by rank; no nodes for a replica of one process.
  std::vector<std::string> nodes;
  std::vector<std::string> devices;
  /// The group that the rank belongs to, and ends with.
  rank_owner owner;
};
TROUPE_INSPECT(rank_order, model, version, rank, nodes, devices, owner)

/// What follows the prefix index of a replica; the next report waits for the answer.
using index_sink = caf::typed_actor<TROUPE_ANSWERS(void, engine::kv_index_report)>;

/// The block pool and prefix index of one replica. `attach` sends the whole index to a router and
/// then what changes, until that router dies; again, the whole once more.
using kv_manager_actor =
    caf::typed_actor<TROUPE_ANSWERS(engine::kv_admitted, engine::kv_admit),
                     TROUPE_ANSWERS(engine::kv_grant, engine::kv_want),
                     TROUPE_TAKES(engine::kv_commit), TROUPE_TAKES(engine::kv_release),
                     TROUPE_TAKES(attach_atom, hub_id, index_sink), TROUPE_TAKES(tick_atom),
                     TROUPE_ANSWERS(kv_report, status_atom)>;

/// The scheduler of one replica. `submit` is answered `accepted` or an error at once.
using scheduler_actor =
    caf::typed_actor<TROUPE_ANSWERS(accepted, submit_atom, engine::submission),
                     TROUPE_TAKES(cancel_atom, request_id),
                     TROUPE_TAKES(attach_atom, hub_id, hub_actor),
                     TROUPE_ANSWERS(load_report, status_atom), TROUPE_TAKES(tick_atom)>;

/// What the node tells its router beyond the public part. `attach` adds a replica that serves;
/// `drain` with an id gives a replica nothing new, its streams go on; `detach` removes one, with
/// the reason: its streams go on elsewhere, or here once it is back; `drain` alone refuses new
/// requests and is answered with the number of streams that still run; `tick` is the router's own
/// timer.
using router_core = router_actor::extend<
    TROUPE_TAKES(engine::token_batch), TROUPE_ANSWERS(void, engine::kv_index_report),
    TROUPE_TAKES(attach_atom, engine::replica_facts, scheduler_actor, kv_manager_actor),
    TROUPE_TAKES(drain_atom, replica_id), TROUPE_TAKES(detach_atom, replica_id, caf::error),
    TROUPE_TAKES(load_report), TROUPE_TAKES(tick_atom), TROUPE_ANSWERS(std::uint64_t, drain_atom),
    TROUPE_ANSWERS(std::uint64_t, cancel_atom)>;

/// What a replica tells its node whenever something changed, and at every tick.
struct replica_report {
  replica_status status;
  /// With state "failed": why.
  std::string note;
  errc why = errc::none;
  engine::executor_description loaded;
  engine::scheduler_stats stats;
  std::chrono::milliseconds loading{0};
  /// The worker's thread answers: no step hangs.
  bool answers = false;
};
TROUPE_INSPECT(replica_report, status, note, why, loaded, stats, loading, answers)

/// A custom model's actor -> its node: whether all instances of the model are there. One whose
/// process has ended comes back by itself.
struct custom_standing {
  /// The model's place in the node's list.
  std::uint64_t model = 0;
  bool whole = false;
};
TROUPE_INSPECT(custom_standing, model, whole)

/// Empties a node without cutting a stream.
struct drain_order {
  std::string node;
  /// What still runs then is taken over by other replicas.
  std::chrono::milliseconds deadline{0};
  /// The process stays when it is empty.
  bool stay = false;
};
TROUPE_INSPECT(drain_order, node, deadline, stay)

/// The cluster as the membership of this process sees it.
struct roster_view;
using loaded_model_ptr = std::shared_ptr<const config::loaded_model>;
using roster_view_ptr = std::shared_ptr<const roster_view>;

} // namespace troupe::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::roster_view_ptr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::loaded_model_ptr)

namespace troupe::actors {

/// `attach` with a model serves it, in place of an older one of its name, and is answered when it
/// is ready; `detach` unloads one and is answered when its last request has ended.
using node_core = caf::typed_actor<
    TROUPE_TAKES(replica_report), TROUPE_TAKES(custom_standing), TROUPE_TAKES(tick_atom),
    TROUPE_TAKES(kill_atom, std::string), TROUPE_TAKES(attach_atom, std::string),
    TROUPE_ANSWERS(std::uint64_t, attach_atom, loaded_model_ptr),
    TROUPE_ANSWERS(std::uint64_t, detach_atom, std::string), TROUPE_TAKES(roster_view_ptr),
    TROUPE_TAKES(drain_atom, drain_order), TROUPE_ANSWERS(std::uint64_t, drain_atom),
    TROUPE_ANSWERS(std::uint64_t, cancel_atom), TROUPE_ANSWERS(rank_seat_actor, rank_order)>;

/// Supervises the cast of one replica: worker, kv_manager, scheduler. `attach` adds a router that
/// may give it requests; `drain` takes no new ones from any; `detach` hands over what still runs.
/// With the group of its ranks they come from it: the process of one is being emptied. Then the
/// replica is back when all ranks have places again.
using replica_actor =
    caf::typed_actor<TROUPE_TAKES(tick_atom), TROUPE_TAKES(load_atom),
                     TROUPE_TAKES(kill_atom, std::string),
                     TROUPE_TAKES(attach_atom, hub_id, router_core), TROUPE_TAKES(drain_atom),
                     TROUPE_TAKES(detach_atom, caf::error), TROUPE_TAKES(drain_atom, worker_actor),
                     TROUPE_TAKES(detach_atom, worker_actor, caf::error)>;

} // namespace troupe::actors

CAF_BEGIN_TYPE_ID_BLOCK(troupe_core, caf::first_custom_type_id + 1100)
CAF_ADD_TYPE_ID(troupe_core, (troupe::hub_id))
CAF_ADD_TYPE_ID(troupe_core, (troupe::replica_id))
CAF_ADD_TYPE_ID(troupe_core, (troupe::engine::step_batch))
CAF_ADD_TYPE_ID(troupe_core, (troupe::engine::step_result))
CAF_ADD_TYPE_ID(troupe_core, (troupe::engine::kv_admit))
CAF_ADD_TYPE_ID(troupe_core, (troupe::engine::kv_admitted))
CAF_ADD_TYPE_ID(troupe_core, (troupe::engine::kv_want))
CAF_ADD_TYPE_ID(troupe_core, (troupe::engine::kv_grant))
CAF_ADD_TYPE_ID(troupe_core, (troupe::engine::kv_commit))
CAF_ADD_TYPE_ID(troupe_core, (troupe::engine::kv_release))
CAF_ADD_TYPE_ID(troupe_core, (troupe::engine::executor_description))
CAF_ADD_TYPE_ID(troupe_core, (troupe::engine::replica_facts))
CAF_ADD_TYPE_ID(troupe_core, (troupe::engine::kv_index_report))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::index_sink))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::kv_manager_actor))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::load_report))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::kv_report))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::scheduler_actor))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::router_core))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::replica_report))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::worker_actor))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::rank_seat_actor))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::rank_owner))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::rank_frame))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::rank_peers))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::rank_order))
CAF_ADD_TYPE_ID(troupe_core, (troupe::actors::custom_standing))
CAF_END_TYPE_ID_BLOCK(troupe_core)
