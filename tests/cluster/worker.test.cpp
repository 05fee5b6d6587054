// The worker with an executor that works on behind launch(), as a GPU's does.
#include "actors/worker/worker.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

using namespace troupe;
using namespace troupe::actors;

namespace {

using namespace std::chrono_literals;

struct device {
  std::atomic<std::uint64_t> launched{0};
  /// Steps up to this one are done.
  std::atomic<std::uint64_t> done{0};
  std::atomic<std::uint64_t> collected{0};
  std::atomic<std::uint64_t> fails{0};
  std::atomic<int> resets{0};
  std::atomic<bool> spoiled{false};
  /// It went with a process.
  std::atomic<bool> gone{false};
};

class slow_executor final : public engine::executor {
public:
  explicit slow_executor(std::shared_ptr<device> on) : on_{std::move(on)} {}

  result<void> load(const engine::load_progress&) override { return {}; }
  const engine::executor_description& describe() const override { return description_; }
  result<void> prepare(const engine::step_batch&) override { return {}; }
  result<void> launch(step_id step) override {
    if (value(step) == on_->fails) {
      on_->spoiled = on_->spoiled || on_->gone;
      return fail(on_->gone ? errc::peer_down : errc::internal, "the device is on fire");
    }
    on_->launched = value(step);
    return {};
  }
  result<void> sample(step_id) override { return {}; }
  bool finished(step_id step) const override { return value(step) <= on_->done; }
  result<engine::step_result> collect(step_id step) override {
    on_->collected = value(step);
    engine::step_result made;
    made.id = step;
    return made;
  }
  void reset() override { ++on_->resets; }
  bool spoiled() const noexcept override { return on_->spoiled; }

private:
  std::shared_ptr<device> on_;
  engine::executor_description description_;
};

struct host_config : caf::actor_system_config {
  host_config() { add_messages(*this); }
};

template <class Condition>
bool eventually(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (!condition())
    if (std::chrono::steady_clock::now() > end)
      return false;
    else
      std::this_thread::sleep_for(1ms);
  return true;
}

engine::step_batch step(std::uint64_t id) {
  engine::step_batch made;
  made.id = step_id{id};
  return made;
}

/// A loaded worker; the test is the actor that asks it.
struct bench {
  host_config config;
  caf::actor_system system{config};
  std::shared_ptr<device> on = std::make_shared<device>();
  caf::scoped_actor self{system};
  worker_actor subject;

  bench() {
    worker_options options;
    options.make = [on = on]() -> result<std::unique_ptr<engine::executor>> {
      return std::make_unique<slow_executor>(on);
    };
    subject = system.spawn<caf::detached>(worker, std::move(options));
    self->request(subject, 30s, load_atom::value)
        .receive([](const engine::executor_description&) {},
                 [](const caf::error& why) { FAIL(from_caf(why).note); });
  }
  ~bench() { self->send_exit(subject, caf::exit_reason::user_shutdown); }
  bench(const bench&) = delete;
  bench& operator=(const bench&) = delete;
};

template <class Request>
std::uint64_t number_of(Request& asked) {
  std::uint64_t id = 0;
  asked.receive([&](const engine::step_result& done) { id = value(done.id); },
                [](const caf::error& why) { FAIL(from_caf(why).note); });
  return id;
}

template <class Request>
std::string error_of(Request& asked) {
  std::string note;
  asked.receive([](const engine::step_result&) { FAIL("a step came back good"); },
                [&](const caf::error& why) { note = from_caf(why).note; });
  return note;
}

} // namespace

TEST_CASE("a step is launched while the one before it is in work", "[worker]") {
  bench b;
  auto first = b.self->request(b.subject, 30s, step(1));
  auto second = b.self->request(b.subject, 30s, step(2));
  REQUIRE(eventually([&] { return b.on->launched == 2; }));
  CHECK(b.on->collected == 0);
  b.on->done = 1;
  CHECK(number_of(first) == 1);
  CHECK(b.on->collected == 1);
  auto third = b.self->request(b.subject, 30s, step(3));
  REQUIRE(eventually([&] { return b.on->launched == 3; }));
  CHECK(b.on->collected == 1);
  b.on->done = 3;
  CHECK(number_of(second) == 2);
  CHECK(number_of(third) == 3);
  CHECK(b.on->resets == 0);
}

TEST_CASE("a step that fails takes those in work with it", "[worker]") {
  bench b;
  b.on->fails = 2;
  auto first = b.self->request(b.subject, 30s, step(1));
  auto second = b.self->request(b.subject, 30s, step(2));
  CHECK(error_of(first).find("step 2: the device is on fire") != std::string::npos);
  CHECK(error_of(second).find("step 2: the device is on fire") != std::string::npos);
  CHECK(b.on->resets == 1);
  b.on->done = 3;
  auto third = b.self->request(b.subject, 30s, step(3));
  CHECK(number_of(third) == 3);
}

TEST_CASE("a worker whose step hangs does not answer for its status", "[worker]") {
  bench b;
  auto first = b.self->request(b.subject, 30s, step(1));
  REQUIRE(eventually([&] { return b.on->launched == 1; }));
  bool answered = false;
  b.self->request(b.subject, 200ms, status_atom::value)
      .receive([&](std::uint64_t) { answered = true; }, [](const caf::error&) {});
  CHECK_FALSE(answered);
  b.on->done = 1;
  CHECK(number_of(first) == 1);
  b.self->request(b.subject, 30s, status_atom::value)
      .receive([&](std::uint64_t) { answered = true; }, [](const caf::error&) {});
  CHECK(answered);
}

TEST_CASE("a worker whose executor is spoiled ends, for another to load anew", "[worker]") {
  bench b;
  b.self->monitor(b.subject);
  const auto ask = [&] {
    b.self->request(b.subject, 30s, status_atom::value)
        .receive([](std::uint64_t) {}, [](const caf::error&) {});
  };
  b.on->fails = 1;
  auto first = b.self->request(b.subject, 30s, step(1));
  CHECK(error_of(first).find("the device is on fire") != std::string::npos);
  ask();
  ask();
  CHECK_FALSE(b.self->mailbox().size() > 0);
  b.on->spoiled = true;
  ask();
  ask();
  std::string why;
  b.self->receive([&](const caf::down_msg& down) { why = from_caf(down.reason).note; },
                  caf::after(30s) >> [] { FAIL("the worker lives"); });
  CHECK(why.find("loaded anew") != std::string::npos);
}

TEST_CASE("steps behind the one that found its executor spoiled are for another worker",
          "[worker]") {
  bench b;
  b.self->monitor(b.subject);
  b.on->spoiled = true;
  errc code = errc::none;
  b.self->request(b.subject, 30s, step(1))
      .receive([](const engine::step_result&) { FAIL("a step came back good"); },
               [&](const caf::error& why) { code = from_caf(why).code; });
  CHECK(code == errc::peer_down);
  CHECK(b.on->launched == 0);
  CHECK_FALSE(b.self->mailbox().size() > 0);
  // Nor is it of use to another scheduler.
  code = errc::none;
  b.self->request(b.subject, 30s, reset_atom::value)
      .receive([] {}, [&](const caf::error& why) { code = from_caf(why).code; });
  CHECK(code == errc::peer_down);
  b.self->receive([](const caf::down_msg&) {}, caf::after(30s) >> [] { FAIL("the worker lives"); });
}

TEST_CASE("a worker whose executor went with its process ends at once", "[worker]") {
  bench b;
  b.self->monitor(b.subject);
  b.on->gone = true;
  b.on->fails = 2;
  auto first = b.self->request(b.subject, 30s, step(1));
  auto second = b.self->request(b.subject, 30s, step(2));
  CHECK(error_of(first).find("the device is on fire") != std::string::npos);
  CHECK(error_of(second).find("the device is on fire") != std::string::npos);
  caf::error why;
  b.self->receive([&](const caf::down_msg& down) { why = down.reason; },
                  caf::after(30s) >> [] { FAIL("the worker lives"); });
  CHECK(from_caf(why).code == errc::peer_down);
}
