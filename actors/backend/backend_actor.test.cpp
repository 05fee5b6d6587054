#include "actors/backend/backend_actor.hpp"

#include "actors/wake_batch.hpp"

#include <catch2/catch.hpp>

#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>

using namespace troupe;
using namespace troupe::actors;
using namespace std::chrono_literals;

namespace {

/// What the fakes have seen, for the thread of the test to wait for.
struct diary {
  std::mutex mutex;
  std::condition_variable written;
  std::vector<std::uint32_t> offsets;
  std::vector<std::thread::id> threads;
  std::thread::id own;
  bool accepted = false;
  bool executing = false;
  bool go_on = true;

  template <class F>
  void write(F&& f) {
    {
      const std::lock_guard lock{mutex};
      f();
    }
    written.notify_all();
  }
  template <class F>
  bool await(F&& f) {
    std::unique_lock lock{mutex};
    return written.wait_for(lock, 10s, f);
  }
  bool await_chunks(std::size_t n) {
    return await([&] { return offsets.size() >= n; });
  }
  std::thread::id last_thread() {
    const std::lock_guard lock{mutex};
    return threads.empty() ? std::thread::id{} : threads.back();
  }
};

struct fake_stream final : token_stream {
  explicit fake_stream(std::shared_ptr<diary> into) : book{std::move(into)} {}
  void on_accepted(const accepted&) override {
    book->write([&] { book->accepted = true; });
  }
  void on_failed(const error&) override {}
  bool on_chunk(const engine::token_chunk& chunk) override {
    if (chunk.why != errc::none)
      throw std::runtime_error{"a chunk that nobody can read"};
    book->write([&] {
      book->offsets.push_back(chunk.offset);
      book->threads.push_back(std::this_thread::get_id());
    });
    return true;
  }
  std::shared_ptr<diary> book;
};

/// Submits every request; holds its thread in execute while the diary says so.
struct fake_backend final : backend {
  explicit fake_backend(std::shared_ptr<diary> into) : book{std::move(into)} {}
  result<config::model_config> auto_complete_config(config::model_config given) override {
    return given;
  }
  result<void> initialize(const config::model_config&, engine_port& port) override {
    engine = &port;
    return {};
  }
  void execute(inference_request_ptr, response_sink_ptr sink) override {
    engine->submit({}, std::make_shared<fake_stream>(book), std::move(sink));
    book->write([&] {
      book->own = std::this_thread::get_id();
      book->executing = true;
    });
    (void)book->await([&] { return book->go_on; });
  }
  void finalize() override {}
  std::shared_ptr<diary> book;
  engine_port* engine = nullptr;
};

struct no_sink final : response_sink {
  void on_accepted(request_id, std::uint32_t) override {}
  void on_part(response_part) override {}
};

router_actor::behavior_type fake_router(router_actor::pointer, const accepted& answer) {
  return {
      [answer](submit_atom, const engine::submission&, const token_sink&) { return answer; },
      [](cancel_atom, request_id) {},
      [](status_atom) { return cluster_status{}; },
  };
}

struct settings : caf::actor_system_config {
  settings() { add_messages(*this); }
};

/// A backend with one stream that the router has taken.
struct stage {
  explicit stage(bool brief) {
    config::model_config model;
    model.max_queued_requests = {100, {}};
    host = system.spawn<backend_host, caf::detached>(
        backend_options{.model = model,
                        .make = [book = book] { return std::make_unique<fake_backend>(book); },
                        .brief_streams = brief});
    router = system.spawn(fake_router, accepted{});
    self->send(host, attach_atom::value, router);
    self->request(host, 10s, load_atom::value).receive([] {}, [](const caf::error&) { FAIL(); });
    execute();
    REQUIRE(book->await([&] { return book->accepted; }));
  }
  ~stage() {
    book->write([&] { book->go_on = true; });
    caf::anon_send_exit(host, caf::exit_reason::user_shutdown);
    caf::anon_send_exit(router, caf::exit_reason::user_shutdown);
  }
  stage(const stage&) = delete;
  stage& operator=(const stage&) = delete;

  void execute() {
    self->send(host, execute_atom::value,
               inference_request_ptr{std::make_shared<inference_request>()},
               response_sink_ptr{std::make_shared<no_sink>()});
  }
  void bring(std::uint32_t offset, std::size_t chunks = 1, errc why = errc::none) {
    engine::token_batch batch;
    for (std::size_t i = 0; i < chunks; ++i) {
      engine::token_chunk chunk;
      chunk.offset = offset + static_cast<std::uint32_t>(i);
      chunk.why = why;
      batch.chunks.push_back(chunk);
    }
    self->send(host, std::move(batch));
  }
  /// Brings chunks from 0 on until one is taken in this thread: the backend sleeps from then on.
  /// @return how many it took; 0: it never slept
  std::uint32_t bring_until_asleep() {
    for (std::uint32_t i = 0; i < 1000; ++i) {
      bring(i);
      if (book->last_thread() == std::this_thread::get_id())
        return i + 1;
      std::this_thread::sleep_for(10ms);
    }
    return 0;
  }

  std::shared_ptr<diary> book = std::make_shared<diary>();
  settings config;
  caf::actor_system system{config};
  caf::scoped_actor self{system};
  backend_core host;
  router_actor router;
};

} // namespace

TEST_CASE("a sleeping backend takes few tokens in the thread that brings them", "[backend]") {
  stage s{true};
  const auto n = s.bring_until_asleep();
  REQUIRE(n > 0);
  s.bring(n, wake_batch::few_together);
  REQUIRE(s.book->offsets.size() == n + wake_batch::few_together);
  CHECK(s.book->last_thread() == std::this_thread::get_id());

  // Many are its own thread's business.
  s.bring(n + wake_batch::few_together, wake_batch::few_together + 1);
  REQUIRE(s.book->await_chunks(n + 2 * wake_batch::few_together + 1));
  CHECK(s.book->last_thread() == s.book->own);
  for (std::uint32_t i = 0; i < s.book->offsets.size(); ++i)
    CHECK(s.book->offsets[i] == i);
}

TEST_CASE("streams that may block are left to the backend's thread", "[backend]") {
  stage s{false};
  // Asleep or not.
  for (std::uint32_t i = 0; i < 10; ++i) {
    s.bring(i);
    REQUIRE(s.book->await_chunks(i + 1));
    CHECK(s.book->last_thread() == s.book->own);
    std::this_thread::sleep_for(5ms);
  }
}

TEST_CASE("tokens never overtake what a busy backend has in its mailbox", "[backend]") {
  stage s{true};
  s.book->write([&] { s.book->go_on = s.book->executing = false; });
  s.execute();
  REQUIRE(s.book->await([&] { return s.book->executing; }));
  for (std::uint32_t i = 0; i < 100; ++i)
    s.bring(i);
  {
    const std::lock_guard lock{s.book->mutex};
    CHECK(s.book->offsets.empty());
  }
  s.book->write([&] { s.book->go_on = true; });
  // While it catches up, and beyond.
  for (std::uint32_t i = 100; i < 5000; ++i)
    s.bring(i);
  REQUIRE(s.book->await_chunks(5000));
  for (std::uint32_t i = 0; i < 5000; ++i)
    REQUIRE(s.book->offsets[i] == i);
}

TEST_CASE("a backend that dies of its tokens takes no sender with it", "[backend]") {
  stage s{true};
  s.self->monitor(s.host);
  REQUIRE(s.bring_until_asleep() > 0);
  s.bring(0, 1, errc::internal);
  bool died = false;
  s.self->receive([&](const caf::down_msg&) { died = true; }, caf::after(10s) >> [] {});
  CHECK(died);
}
