// An executor in a process of its own does what one in this process does, and its end is told.
#include "actors/worker/process_executor.hpp"

#include "engine/exec/conformance.hpp"
#include "engine/exec/cpu_executor.hpp"
#include "engine/exec/rank_group.hpp"
#include "engine/exec/step_driver.hpp"
#include "engine/weights/test_checkpoint.hpp"
#include "troupe/actors/backends.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <filesystem>
#include <fstream>

using namespace troupe;
using namespace troupe::actors;

namespace fs = std::filesystem;
namespace test = engine::test;

namespace {

constexpr std::string_view llama = R"({"architectures":["LlamaForCausalLM"],"hidden_size":64,
  "intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":8,"num_key_value_heads":4,
  "head_dim":16,"vocab_size":301,"max_position_embeddings":256,"rope_theta":10000.0})";

engine::executor_options random_model(const test::temporary_folder& folder, unsigned threads) {
  folder.write("config.json", llama);
  auto options = test::conformance_options(threads);
  options.model_dir = folder.path();
  options.dtype = "float32";
  options.load_format = "dummy";
  options.seed = 5;
  return options;
}

/// On this machine's CPU.
std::unique_ptr<engine::executor> in_own_process(const engine::executor_options& options) {
  set_host_command({TROUPE_PROGRAM, "host-process"});
  auto made = make_process_executor("cpu", options);
  CAPTURE(made ? "" : made.error().note);
  REQUIRE(made);
  return std::move(*made);
}

std::unique_ptr<engine::executor> loaded(std::unique_ptr<engine::executor> run) {
  const auto good = run->load({});
  CAPTURE(good ? "" : good.error().note);
  REQUIRE(good);
  return run;
}

std::vector<token_id> greedy(engine::executor& run) {
  test::step_driver drive{run};
  return test::generate_alone(drive, test::prompt_of(20, 1), test::sampling_at(), 12);
}

/// The processes that this one has started and that are there.
std::vector<pid_t> children() {
  std::vector<pid_t> all;
  for (const auto& thread : fs::directory_iterator{"/proc/self/task"}) {
    std::ifstream in{thread.path() / "children"};
    for (pid_t pid = 0; in >> pid;)
      all.push_back(pid);
  }
  return all;
}

} // namespace

TEST_CASE("an executor in a process of its own conforms", "[process_executor]") {
  const test::temporary_folder folder;
  test::conformance_case subject;
  subject.name = "cpu in a process of its own";
  subject.make = [&](unsigned threads) {
    return loaded(in_own_process(random_model(folder, threads)));
  };
  subject.logits = [](engine::executor&, std::size_t) { return std::span<const float>{}; };
  test::check_conformance(subject);
  test::check_swapping(subject);
  CHECK(children().empty());
}

TEST_CASE("it tells what it is, what it would take, and how far its load is",
          "[process_executor]") {
  const test::temporary_folder folder;
  const auto options = random_model(folder, 1);
  engine::cpu_executor here{options};
  const auto there = in_own_process(options);
  const auto wanted = here.foresee(0);
  const auto told = there->foresee(0);
  REQUIRE(wanted);
  REQUIRE(told);
  CHECK(told->weight_bytes == wanted->weight_bytes);
  CHECK(told->num_blocks == wanted->num_blocks);
  double last = -1;
  REQUIRE(there->load([&](double share, std::string_view what) {
    CHECK(share >= last);
    CHECK_FALSE(what.empty());
    last = share;
  }));
  CHECK(last > 0);
  REQUIRE(here.load({}));
  CHECK(there->describe().numerics == here.describe().numerics);
  CHECK(there->describe().num_blocks == here.describe().num_blocks);
  CHECK(greedy(*there) == greedy(here));
  CHECK_FALSE(there->spoiled());
}

TEST_CASE("a rank in a process of its own exchanges with those of this one", "[process_executor]") {
  const test::temporary_folder folder;
  const auto options = random_model(folder, 1);
  const auto alone = loaded(std::make_unique<engine::cpu_executor>(options));
  test::rank_group both{2, options, [](const engine::executor_options& place) {
                          return place.rank == 0 ? std::make_unique<engine::cpu_executor>(place)
                                                 : in_own_process(place);
                        }};
  REQUIRE(both.load({}));
  CHECK(greedy(both) == greedy(*alone));

  // Its end is that of the group.
  const auto there = children();
  REQUIRE(there.size() == 1);
  ::kill(there.front(), SIGKILL);
  both.reset();
  CHECK(greedy(both).back() == -1);
  CHECK(both.rank(1).spoiled());
  REQUIRE(both.end(0).failure());
  CHECK(both.end(0).failure()->note.find("signal 9") != std::string::npos);
}

TEST_CASE("the end of the process is told with how it ended, and spoils the executor alone",
          "[process_executor]") {
  const test::temporary_folder folder;
  const auto run = loaded(in_own_process(random_model(folder, 1)));
  REQUIRE(greedy(*run).back() >= 0);
  const auto there = children();
  REQUIRE(there.size() == 1);
  ::kill(there.front(), SIGKILL);
  run->reset();
  const auto failed = run->launch(step_id{1});
  REQUIRE(!failed);
  CHECK(failed.error().code == errc::peer_down);
  CHECK(failed.error().note == "the process that has cpu ended with signal 9 (Killed)");
  CHECK(run->spoiled());
  CHECK(run->finished(step_id{1}));
  CHECK(run->collect(step_id{1}).error().code == errc::invalid_argument);
  CHECK(children().empty());
}

TEST_CASE("what cannot be made or loaded there is told with its reason", "[process_executor]") {
  const test::temporary_folder folder;
  auto options = random_model(folder, 1);
  set_host_command({TROUPE_PROGRAM, "host-process"});
  const auto other = make_process_executor("gpu", options);
  REQUIRE(!other);
  CHECK(other.error().code == errc::not_found);
  CHECK(other.error().note.find("there is no executor 'gpu'") != std::string::npos);

  options.model_dir = folder.path() / "nowhere";
  const auto none = in_own_process(options)->load({});
  REQUIRE(!none);
  CHECK(none.error().code == errc::not_found);
  CHECK(none.error().note.find("nowhere") != std::string::npos);

  set_host_command({});
  const auto unsaid = make_process_executor("cpu", options);
  REQUIRE(!unsaid);
  CHECK(unsaid.error().code == errc::unsupported);
  CHECK(unsaid.error().note.find("set_host_command()") != std::string::npos);
  CHECK(children().empty());
}
