#include "actors/worker/worker_group.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <optional>
#include <type_traits>

namespace troupe::actors {

namespace {

using self_ptr = worker_actor::stateful_pointer<worker_group_state>;

/// The ranks bound their own waiting: their exchanges have limits, and the end of one ends all.
constexpr std::chrono::hours no_limit{24 * 365};

/// One question to all ranks.
template <class T>
struct round {
  caf::typed_response_promise<T> answer;
  std::vector<std::optional<result<T>>> answers;
  std::size_t open = 0;
  /// Makes one of the answers of all.
  T (*join)(std::vector<T> all);
};

/// Ends the group: what its ranks wait for, and its steps, end with `why`.
void break_up(self_ptr self, const error& why) {
  for (const auto& end : state(self).ends)
    end->abort(why);
  self->quit(to_caf(why));
}

/// Why the ranks cannot go on together, if they cannot.
std::optional<error> failure_of(const worker_group_state& st) {
  for (const auto& end : st.ends)
    if (auto why = end->failure())
      return why;
  return std::nullopt;
}

template <class T>
void settle(self_ptr self, round<T>& asked) {
  std::vector<T> good;
  std::optional<error> wrong;
  for (std::size_t rank = 0; rank < asked.answers.size(); ++rank) {
    result<T>& one = *asked.answers[rank];
    if (one)
      good.push_back(std::move(*one));
    else if (!wrong)
      wrong = error{one.error().code, fmt::format("rank {}: {}", rank, one.error().note)};
  }
  if (!wrong) {
    asked.answer.deliver(asked.join(std::move(good)));
    return;
  }
  auto broken = failure_of(state(self));
  if (!broken && !good.empty())
    broken = wrong;
  asked.answer.deliver(to_caf(broken.value_or(*wrong)));
  // Whoever had it loaded decides whether a second try may do better.
  constexpr bool loading = std::is_same_v<T, engine::executor_description>;
  if (broken && !loading)
    break_up(self, *broken);
}

template <class T, class Question>
caf::typed_response_promise<T> ask_all(self_ptr self, const Question& question,
                                       T (*join)(std::vector<T> all)) {
  const auto& ranks = state(self).ranks;
  auto asked = std::make_shared<round<T>>();
  asked->answer = self->template make_response_promise<T>();
  asked->answers.resize(ranks.size());
  asked->open = ranks.size();
  asked->join = join;
  const auto take = [self, asked](std::size_t rank, result<T> answer) {
    asked->answers[rank] = std::move(answer);
    if (--asked->open == 0)
      settle(self, *asked);
  };
  for (std::size_t rank = 0; rank < ranks.size(); ++rank)
    ask(self, ranks[rank], no_limit, question)
        .then([take, rank](T& answer) { take(rank, std::move(answer)); },
              [take, rank](const caf::error& why) { take(rank, fail(from_caf(why))); });
  return asked->answer;
}

/// The whole replica: what its ranks hold together.
engine::executor_description join_loaded(std::vector<engine::executor_description> all) {
  auto whole = all.front();
  whole.weight_bytes = whole.kv_bytes_per_block = 0;
  for (const auto& one : all) {
    whole.weight_bytes += one.weight_bytes;
    whole.kv_bytes_per_block += one.kv_bytes_per_block;
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
  for (std::size_t rank = 0; rank < st.ranks.size(); ++rank)
    if (st.ranks[rank]->address() == down.source)
      break_up(self, {errc::peer_down,
                      fmt::format("{} stopped", st.ends[rank]->name_of(std::uint32_t(rank)))});
}

void spawn_ranks(self_ptr self, const replica_workers& options) {
  auto& st = state(self);
  st.ends = engine::make_local_group(options.ranks);
  for (std::uint32_t rank = 0; rank < options.ranks; ++rank) {
    const rank_place place{.rank = rank, .ranks = options.ranks, .group = st.ends[rank]};
    worker_options one{.make = [make = options.make, place] { return make(place); },
                       .progress = rank == 0 ? options.progress : engine::load_progress{}};
    st.ranks.push_back(self->spawn<caf::detached + caf::monitored>(worker, std::move(one)));
  }
}

} // namespace

worker_group_state::~worker_group_state() {
  for (const auto& end : ends)
    end->abort({errc::peer_down, "the ranks of the replica were told to stop"});
  for (const auto& rank : ranks)
    caf::anon_send_exit(rank, caf::exit_reason::user_shutdown);
}

worker_actor::behavior_type worker_group(self_ptr self, const replica_workers& options) {
  self->set_down_handler([self](const caf::down_msg& down) { on_down(self, down); });
  spawn_ranks(self, options);
  return {
      [self](load_atom question) { return ask_all(self, question, join_loaded); },
      [self](const engine::step_batch& step) { return ask_all(self, step, join_steps); },
      [self](reset_atom question) {
        // Steps that come later stand behind it in the mailbox of every rank.
        for (const auto& rank : state(self).ranks)
          tell(self, rank, question);
      },
      [self](status_atom question) { return ask_all(self, question, join_waiting); },
  };
}

} // namespace troupe::actors
