#include "actors/worker/worker_group.hpp"

#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <type_traits>
#include <utility>

namespace troupe::actors {

namespace {

using self_ptr = worker_group_actor::stateful_pointer<worker_group_state>;

/// Between two questions for a seat on a node that is not there.
constexpr std::chrono::milliseconds seat_interval{100};

/// One question to all ranks.
template <class T>
struct round {
  caf::typed_response_promise<T> answer;
  std::vector<std::optional<result<T>>> answers;
  std::size_t open = 0;
  std::uint64_t number = 0;
  /// Makes one of the answers of all.
  T (*join)(std::vector<T> all);
};

/// Fails the exchanges between the ranks: whoever waits in one is awake.
void abort_exchanges(self_ptr self, const error& why) {
  auto& st = state(self);
  for (const auto& end : st.ends)
    end->abort(why);
  for (const auto& seat : st.seats)
    if (seat)
      tell(self, seat, detach_atom::value, to_caf(why));
}

/// Ends a load that is not with the ranks yet.
void refuse_load(self_ptr self, const error& why) {
  if (auto asked = std::exchange(state(self).loading, std::nullopt))
    asked->deliver(to_caf(why));
}

/// Ends the group: what its ranks wait for, and its steps, end with `why`.
void break_up(self_ptr self, const error& why) {
  abort_exchanges(self, why);
  const error death{errc::peer_down, why.note};
  refuse_load(self, death);
  for (const auto& [number, fail_it] : std::exchange(state(self).open, {}))
    fail_it(death);
  self->quit(to_caf(death));
}

/// What is said of a rank whose actor is no more.
error stopped(const worker_group_state& st, std::size_t rank) {
  return {errc::peer_down, fmt::format("{} stopped", st.names[rank])};
}

/// Why the ranks cannot go on together, if they cannot.
std::optional<error> failure_of(const worker_group_state& st) {
  for (const auto& end : st.ends)
    if (auto why = end->failure())
      return why;
  return std::nullopt;
}

/// What went wrong in a round, of all ranks or of one; nothing where all is well.
struct verdict {
  std::optional<error> wrong;
  /// All ranks say the same.
  bool alike = true;
};

template <class T>
verdict judge(const worker_group_state& st, const round<T>& asked) {
  verdict found;
  for (std::size_t rank = 0; rank < asked.answers.size(); ++rank) {
    const result<T>& one = *asked.answers[rank];
    const result<T>& first = *asked.answers.front();
    found.alike &= one.has_value() == first.has_value() && (one || one.error() == first.error());
    if (!one && !found.wrong)
      found.wrong = engine::named_for(st.names[rank], one.error());
  }
  if (found.wrong && found.alike)
    found.wrong = asked.answers.front()->error();
  return found;
}

template <class T>
void settle(self_ptr self, round<T>& asked) {
  auto& st = state(self);
  const auto found = judge(st, asked);
  st.open.erase(asked.number);
  if (!found.wrong) {
    std::vector<T> good;
    for (auto& one : asked.answers)
      good.push_back(std::move(**one));
    asked.answer.deliver(asked.join(std::move(good)));
    return;
  }
  auto broken = failure_of(st);
  if (!broken && !found.alike)
    broken = found.wrong;
  // Whoever had it loaded decides whether a second try may do better.
  if (!broken || std::is_same_v<T, engine::executor_description>) {
    asked.answer.deliver(to_caf(broken.value_or(*found.wrong)));
    return;
  }
  asked.answer.deliver(to_caf({errc::peer_down, broken->note}));
  break_up(self, *broken);
}

template <class T>
void take_answer(self_ptr self, round<T>& asked, std::size_t rank, result<T> answer) {
  if (!answer && std::is_same_v<T, engine::executor_description>)
    // One that never comes to the exchanges of the load would leave the others there.
    abort_exchanges(self, answer.error());
  else if (!answer && answer.error().code == errc::peer_down)
    // Nothing comes of these ranks any more, and one of them may hang in its device.
    return break_up(self,
                    failure_of(state(self))
                        .value_or(engine::named_for(state(self).names[rank], answer.error())));
  asked.answers[rank] = std::move(answer);
  if (--asked.open == 0 && state(self).open.contains(asked.number))
    settle(self, asked);
}

/// The ranks bound their own waiting: their exchanges have limits, and the end of one ends all.
template <class T, class Question>
void ask_all(self_ptr self, const Question& question, T (*join)(std::vector<T> all),
             caf::typed_response_promise<T> answer) {
  auto& st = state(self);
  auto asked = std::make_shared<round<T>>();
  asked->answer = answer;
  asked->answers.resize(st.ranks.size());
  asked->open = st.ranks.size();
  asked->number = ++st.rounds;
  asked->join = join;
  st.open[asked->number] = [answer](const error& why) mutable { answer.deliver(to_caf(why)); };
  for (std::size_t rank = 0; rank < st.ranks.size(); ++rank)
    ask_without_limit(self, st.ranks[rank], question)
        .then([self, asked,
               rank](T& one) { take_answer(self, *asked, rank, result<T>{std::move(one)}); },
              [self, asked, rank](const caf::error& why) {
                auto told = is_from_troupe(why) ? from_caf(why) : stopped(state(self), rank);
                take_answer(self, *asked, rank, result<T>{fail(std::move(told))});
              });
}

template <class T, class Question>
caf::result<T> ask_loaded(self_ptr self, const Question& question, T (*join)(std::vector<T> all)) {
  if (state(self).ranks.empty())
    return to_caf({errc::internal, "the ranks were given a step before they had loaded"});
  auto answer = self->make_response_promise<T>();
  ask_all(self, question, join, answer);
  return answer;
}

/// The whole replica: what its ranks hold together.
engine::executor_description join_loaded(std::vector<engine::executor_description> all) {
  auto whole = all.front();
  whole.weight_bytes = whole.kv_bytes_per_block = 0;
  for (const auto& one : all) {
    whole.weight_bytes += one.weight_bytes;
    whole.kv_bytes_per_block += one.kv_bytes_per_block;
    whole.num_host_blocks = std::min(whole.num_host_blocks, one.num_host_blocks);
  }
  return whole;
}

engine::step_result join_steps(std::vector<engine::step_result> all) {
  return std::move(all.front());
}

std::uint64_t join_waiting(std::vector<std::uint64_t> all) {
  return *std::max_element(all.begin(), all.end());
}

void on_down(self_ptr self, const caf::down_msg& down) {
  const auto& st = state(self);
  const auto is_lost = [&](const auto& handle) {
    return handle && handle->address() == down.source;
  };
  for (std::size_t rank = 0; rank < st.names.size(); ++rank)
    if ((rank < st.ranks.size() && is_lost(st.ranks[rank])) ||
        (rank < st.seats.size() && is_lost(st.seats[rank])))
      return break_up(self, stopped(st, rank));
}

// -- ranks in this process ------------------------------------------------------------------------

void spawn_ranks(self_ptr self) {
  auto& st = state(self);
  const auto& options = st.options;
  st.ends = engine::make_local_group(options.ranks);
  for (std::uint32_t rank = 0; rank < options.ranks; ++rank) {
    const rank_place place{.rank = rank, .ranks = options.ranks, .group = st.ends[rank]};
    worker_options one{.make = [make = options.make, place] { return make(place); },
                       .progress = rank == 0 ? options.progress : engine::load_progress{},
                       .group = place.group};
    st.names.push_back(st.ends[rank]->name_of(rank));
    st.ranks.push_back(self->spawn<caf::detached + caf::monitored>(worker, std::move(one)));
  }
}

// -- ranks in several processes -------------------------------------------------------------------

/// All seats have met: their workers may load.
void load_seated(self_ptr self) {
  auto& st = state(self);
  for (const auto& rank : st.ranks)
    self->monitor(rank);
  if (auto asked = std::exchange(st.loading, std::nullopt))
    ask_all(self, load_atom::value, join_loaded, *asked);
}

void introduce_seats(self_ptr self) {
  auto& st = state(self);
  rank_peers all;
  for (const auto& seat : st.seats)
    all.inboxes.emplace_back(seat);
  auto workers = std::make_shared<std::vector<worker_actor>>(st.seats.size());
  for (std::size_t rank = 0; rank < st.seats.size(); ++rank)
    ask_without_limit(self, st.seats[rank], attach_atom::value, all)
        .then(
            [self, rank, workers](const worker_actor& one) {
              (*workers)[rank] = one;
              if (++state(self).ranks_met < workers->size())
                return;
              state(self).ranks = *workers;
              load_seated(self);
            },
            [self](const caf::error& why) { break_up(self, from_caf(why)); });
}

void take_seat(self_ptr self, std::uint32_t rank, const rank_seat_actor& seat) {
  auto& st = state(self);
  st.seats[rank] = seat;
  self->monitor(seat);
  if (std::all_of(st.seats.begin(), st.seats.end(), [](const auto& one) { return bool(one); }))
    introduce_seats(self);
}

/// A node that is not there may come; any other reason stays.
void miss_seat(self_ptr self, std::uint32_t rank, const error& why) {
  auto& st = state(self);
  const bool passes = why.code == errc::peer_down || why.code == errc::draining ||
                      why.code == errc::busy || why.code == errc::timed_out;
  if (!passes)
    return refuse_load(self, engine::named_for(st.names[rank], why));
  if (st.unseated.empty())
    tell_later(self, seat_interval, tick_atom::value);
  st.unseated.insert(rank);
}

void ask_for_seat(self_ptr self, std::uint32_t rank) {
  auto order = state(self).options.whole;
  order.rank = rank;
  order.owner = rank_owner{worker_group_actor{self}};
  ask_without_limit(self, state(self).options.node, std::move(order))
      .then([self, rank](const rank_seat_actor& seat) { take_seat(self, rank, seat); },
            [self, rank](const caf::error& why) { miss_seat(self, rank, from_caf(why)); });
}

void seat_ranks(self_ptr self) {
  auto& st = state(self);
  const auto& options = st.options;
  st.seats.resize(options.ranks);
  for (std::uint32_t rank = 0; rank < options.ranks; ++rank) {
    if (!options.is_here(rank)) {
      ask_for_seat(self, rank);
      continue;
    }
    rank_seat_options one{.make = options.make,
                          .progress = rank == 0 ? options.progress : engine::load_progress{},
                          .rank = rank,
                          .names = st.names,
                          .owner = rank_owner{worker_group_actor{self}}};
    take_seat(self, rank, self->spawn(rank_seat, std::move(one)));
  }
}

caf::result<engine::executor_description> load(self_ptr self) {
  auto& st = state(self);
  auto answer = self->make_response_promise<engine::executor_description>();
  if (!st.ranks.empty()) {
    ask_all(self, load_atom::value, join_loaded, answer);
    return answer;
  }
  st.loading = answer;
  if (st.seats.empty())
    seat_ranks(self);
  return answer;
}

} // namespace

worker_group_state::~worker_group_state() {
  for (const auto& end : ends)
    end->abort({errc::peer_down, "the ranks of the replica were told to stop"});
  for (const auto& seat : seats)
    if (seat)
      caf::anon_send_exit(seat, caf::exit_reason::user_shutdown);
  for (const auto& rank : ranks)
    caf::anon_send_exit(rank, caf::exit_reason::user_shutdown);
}

worker_group_actor::behavior_type worker_group(self_ptr self, replica_workers options) {
  auto& st = state(self);
  st.options = std::move(options);
  self->set_down_handler([self](const caf::down_msg& down) { on_down(self, down); });
  const auto& nodes = st.options.whole.nodes;
  if (std::all_of(nodes.begin(), nodes.end(), [&](const auto& n) { return n == nodes.front(); }))
    spawn_ranks(self);
  else
    st.names = names_of_ranks(st.options.whole);
  return {
      [self](load_atom) { return load(self); },
      [self](const engine::step_batch& step) { return ask_loaded(self, step, join_steps); },
      [self](reset_atom question) {
        // Steps that come later stand behind it in the mailbox of every rank.
        for (const auto& rank : state(self).ranks)
          tell(self, rank, question);
      },
      [self](status_atom question) { return ask_loaded(self, question, join_waiting); },
      [self](tick_atom) {
        for (const auto rank : std::exchange(state(self).unseated, {}))
          ask_for_seat(self, rank);
      },
      [self](kill_atom) {
        if (!state(self).ranks.empty())
          caf::anon_send_exit(state(self).ranks.back(), caf::exit_reason::kill);
      },
      [self](drain_atom what) {
        if (const auto& up = state(self).options.supervisor)
          tell(self, up, what, worker_actor{worker_group_actor{self}});
      },
      [self](detach_atom what, const caf::error& why) {
        if (const auto& up = state(self).options.supervisor)
          tell(self, up, what, worker_actor{worker_group_actor{self}}, why);
      },
  };
}

} // namespace troupe::actors
