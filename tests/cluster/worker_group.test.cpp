// The ranks of a tensor-parallel replica as one worker: what they answer together, and what becomes
// of a step when one of them fails. Seats are what ranks of other processes have; here their node
// is an actor of the test.
#include "actors/worker/worker_group.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <chrono>
#include <initializer_list>
#include <map>
#include <stdexcept>

using namespace troupe;
using namespace troupe::actors;

namespace {

using namespace std::chrono_literals;

/// What each rank is to do, by the number of the step.
enum class deed { work, refuse, fail_alone, abort, die };

struct script {
  std::map<std::uint64_t, deed> of_all;
  std::map<std::uint64_t, deed> of_rank_1;
  std::optional<error> load_error_of_rank_1;
  std::chrono::milliseconds limit{20s};
  std::atomic<int> resets{0};
  /// How often the node of rank 1 says that it is not there.
  std::atomic<int> absences{0};
};

/// Brings its rank as a token, and exchanges once in each launch.
class scripted_executor final : public engine::executor {
public:
  scripted_executor(std::shared_ptr<script> plan, rank_place place)
      : plan_{std::move(plan)}, place_{std::move(place)} {
    description_.weight_bytes = 100 + place_.rank;
    description_.kv_bytes_per_block = 10;
    description_.num_blocks = 7;
  }

  result<void> load(const engine::load_progress&) override {
    if (place_.rank != 1 || !plan_->load_error_of_rank_1)
      return exchange(0, 20s);
    place_.group->abort(*plan_->load_error_of_rank_1);
    return fail(*plan_->load_error_of_rank_1);
  }
  const engine::executor_description& describe() const override { return description_; }
  result<void> prepare(const engine::step_batch& step) override {
    if (deed_at(step.id) == deed::refuse)
      return fail(errc::invalid_argument, "no such sequence");
    return {};
  }
  result<void> launch(step_id step) override {
    if (deed_at(step) == deed::die)
      throw std::runtime_error{"the rank is struck down"};
    if (deed_at(step) == deed::fail_alone)
      return fail(errc::internal, "the device is on fire");
    if (deed_at(step) == deed::abort)
      place_.group->abort({errc::timed_out, "rank 1 waited too long"});
    return exchange(value(step), plan_->limit);
  }
  result<void> sample(step_id) override { return {}; }
  result<engine::step_result> collect(step_id step) override {
    engine::step_result made;
    made.id = step;
    made.tokens.push_back({request_id{1}, static_cast<token_id>(place_.rank)});
    return made;
  }
  void reset() override { ++plan_->resets; }

private:
  deed deed_at(step_id step) const {
    const auto of = [&](const std::map<std::uint64_t, deed>& deeds) {
      const auto found = deeds.find(value(step));
      return found == deeds.end() ? deed::work : found->second;
    };
    const deed common = of(plan_->of_all);
    return common == deed::work && place_.rank == 1 ? of(plan_->of_rank_1) : common;
  }

  result<void> exchange(std::uint64_t tag, std::chrono::milliseconds limit) {
    const std::vector<std::byte> mine(8);
    std::vector<std::byte> all(8 * place_.ranks);
    return place_.group->all_gather({.mine = mine, .all = all, .tag = tag, .limit = limit});
  }

  std::shared_ptr<script> plan_;
  rank_place place_;
  engine::executor_description description_;
};

struct host_config : caf::actor_system_config {
  host_config() { add_messages(*this); }
};

rank_factory factory_of(const std::shared_ptr<script>& plan) {
  return [plan](const rank_place& place) -> result<std::unique_ptr<engine::executor>> {
    return std::make_unique<scripted_executor>(plan, place);
  };
}

struct far_node_state {
  ~far_node_state() {
    for (const auto& seat : seats)
      caf::anon_send_exit(seat, caf::exit_reason::user_shutdown);
  }
  std::vector<rank_seat_actor> seats;
};

/// Stands for the node actors of all other processes.
node_core::behavior_type far_node(node_core::stateful_pointer<far_node_state> self,
                                  const std::shared_ptr<script>& plan) {
  return {
      [](const replica_report&) {},
      [](const custom_standing&) {},
      [](tick_atom) {},
      [self](kill_atom, const std::string&) {
        caf::anon_send_exit(state(self).seats.back(), caf::exit_reason::kill);
      },
      [](attach_atom, const std::string&) {},
      [](attach_atom, const loaded_model_ptr&) { return std::uint64_t{0}; },
      [](detach_atom, const std::string&) { return std::uint64_t{0}; },
      [](const roster_view_ptr&) {},
      [](drain_atom, const drain_order&) {},
      [](drain_atom) { return std::uint64_t{0}; },
      [](cancel_atom) { return std::uint64_t{0}; },
      [self, plan](const rank_order& order) -> caf::result<rank_seat_actor> {
        if (order.rank == 1 && plan->absences > 0) {
          --plan->absences;
          return to_caf({errc::peer_down, "node 'b' is not there"});
        }
        rank_seat_options how{.make = factory_of(plan),
                              .progress = {},
                              .rank = order.rank,
                              .names = names_of_ranks(order),
                              .owner = order.owner};
        return state(self).seats.emplace_back(self->spawn(rank_seat, std::move(how)));
      },
  };
}

/// A group of ranks with that script, all local or every second one at another node; the test is
/// the actor that asks it.
struct bench {
  explicit bench(std::shared_ptr<script> what, bool far, std::uint32_t ranks = 2)
      : plan{std::move(what)} {
    replica_workers workers{.make = factory_of(plan), .progress = {}, .ranks = ranks};
    if (far) {
      node = system.spawn(far_node, plan);
      workers.node = node;
      for (std::uint32_t rank = 0; rank < ranks; ++rank) {
        workers.whole.nodes.emplace_back(rank % 2 == 0 ? "a" : "b");
        workers.whole.devices.emplace_back("cpu");
      }
    }
    group = system.spawn(worker_group, workers);
  }
  ~bench() {
    self->send_exit(group, caf::exit_reason::user_shutdown);
    if (node)
      self->send_exit(node, caf::exit_reason::user_shutdown);
  }

  result<engine::executor_description> load() {
    return ask_group<engine::executor_description>(load_atom::value);
  }
  result<engine::step_result> step(std::uint64_t id) {
    engine::step_batch batch;
    batch.id = step_id{id};
    return ask_group<engine::step_result>(batch);
  }
  /// Whether the group has ended.
  bool ends() {
    bool ended = false;
    self->monitor(group);
    self->receive([&](const caf::down_msg&) { ended = true; }, caf::after(20s) >> [] {});
    return ended;
  }

  template <class T, class Question>
  result<T> ask_group(const Question& question) {
    result<T> answer = fail(errc::internal, "no answer");
    self->request(group, std::chrono::seconds{60}, question)
        .receive([&](T& value) { answer = std::move(value); },
                 [&](const caf::error& why) { answer = fail(from_caf(why)); });
    return answer;
  }

  host_config config;
  caf::actor_system system{config};
  std::shared_ptr<script> plan;
  node_core node;
  worker_actor group;
  caf::scoped_actor self{system};
};

bool says(const error& e, std::string_view what) { return e.note.find(what) != std::string::npos; }

/// The step is the group's last: its error has each of the words.
void check_last_step(bench& b, std::uint64_t id, std::initializer_list<std::string_view> words) {
  const auto lost = b.step(id);
  REQUIRE_FALSE(lost);
  CHECK(lost.error().code == errc::peer_down);
  for (const auto word : words)
    CHECK(says(lost.error(), word));
  CHECK(b.ends());
}

} // namespace

TEST_CASE("a group answers with what rank 0 brought, and holds what all hold") {
  const bool far = GENERATE(false, true);
  for (const std::uint32_t ranks : {2U, 4U}) {
    bench b{std::make_shared<script>(), far, ranks};
    const auto loaded = b.load();
    REQUIRE(loaded);
    CHECK(loaded->weight_bytes == 100 * ranks + ranks * (ranks - 1) / 2);
    CHECK(loaded->kv_bytes_per_block == 10 * ranks);
    CHECK(loaded->num_blocks == 7);
    for (std::uint64_t id = 1; id < 20; ++id) {
      const auto done = b.step(id);
      REQUIRE(done);
      CHECK(done->id == step_id{id});
      CHECK(done->tokens.at(0).token == 0);
    }
    CHECK(b.ask_group<std::uint64_t>(status_atom::value) == 0U);
  }
}

TEST_CASE("a step that all ranks refuse is refused, and the group goes on") {
  const auto plan = std::make_shared<script>();
  plan->of_all[2] = deed::refuse;
  bench b{plan, GENERATE(false, true)};
  REQUIRE(b.load());
  REQUIRE(b.step(1));
  const auto refused = b.step(2);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::invalid_argument);
  CHECK(says(refused.error(), "no such sequence"));
  CHECK(plan->resets == 2);
  CHECK(b.step(3));
}

TEST_CASE("a rank that dies in a step ends the step in an error, and the group") {
  const auto plan = std::make_shared<script>();
  plan->of_rank_1[2] = deed::die;
  bench b{plan, GENERATE(false, true)};
  REQUIRE(b.load());
  REQUIRE(b.step(1));
  const auto begin = std::chrono::steady_clock::now();
  check_last_step(b, 2, {"rank 1", "stopped"});
  CHECK(std::chrono::steady_clock::now() - begin < 10s);
}

TEST_CASE("a rank that fails alone leaves the others until the limit, and ends the group") {
  const auto plan = std::make_shared<script>();
  plan->of_rank_1[1] = deed::fail_alone;
  plan->limit = 100ms;
  bench b{plan, GENERATE(false, true)};
  REQUIRE(b.load());
  check_last_step(b, 1, {"waited 100 ms for rank 1"});
}

TEST_CASE("an aborted exchange ends the group, though all ranks say the same of it") {
  const auto plan = std::make_shared<script>();
  plan->of_rank_1[1] = deed::abort;
  bench b{plan, GENERATE(false, true)};
  REQUIRE(b.load());
  check_last_step(b, 1, {"rank 1 waited too long"});
}

TEST_CASE("a rank that cannot load says why for the group") {
  const auto plan = std::make_shared<script>();
  plan->load_error_of_rank_1 = error{errc::out_of_memory, "rank 1: the weights need 9 MiB"};
  bench b{plan, GENERATE(false, true)};
  const auto loaded = b.load();
  REQUIRE_FALSE(loaded);
  CHECK(loaded.error() == *plan->load_error_of_rank_1);
}

TEST_CASE("a load waits for the node of a rank") {
  const auto plan = std::make_shared<script>();
  plan->absences = 3;
  bench b{plan, true};
  CHECK(b.step(1).error().code == errc::internal);
  REQUIRE(b.load());
  CHECK(plan->absences == 0);
  CHECK(b.step(2));
}

TEST_CASE("the death of a rank's seat is the death of the group") {
  bench b{std::make_shared<script>(), true};
  REQUIRE(b.load());
  REQUIRE(b.step(1));
  b.self->send(b.node, kill_atom::value, std::string{});
  CHECK(b.ends());
}

TEST_CASE("the end of a group ends the ranks that wait") {
  const auto plan = std::make_shared<script>();
  bench b{plan, GENERATE(false, true)};
  REQUIRE(b.load());
  plan->of_rank_1[1] = deed::fail_alone;
  plan->limit = 10min;
  engine::step_batch batch;
  batch.id = step_id{1};
  b.self->send(b.group, batch);
  b.self->send_exit(b.group, caf::exit_reason::kill);
  CHECK(b.ends());
  // The actor system waits for its actors when it ends: a rank that waits on would hang this test.
}
