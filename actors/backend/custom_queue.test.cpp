#include "actors/backend/custom_queue.hpp"

#include <catch2/catch.hpp>

#include <string>

using namespace troupe;
using namespace troupe::actors;
using namespace std::chrono_literals;

namespace {

/// What became of one request.
struct fate final : response_sink {
  void on_accepted(request_id, std::uint32_t) override { accepted = true; }
  void on_part(response_part part) override { why = part.why.note; }
  bool accepted = false;
  std::string why;
};

struct wish {
  std::int64_t rows = 1;
  std::int64_t width = 1;
  std::int32_t priority = 0;
  std::chrono::milliseconds timeout{0};
};

/// A queue of a model with batches of at most 4, and a clock that stands still.
struct bench {
  explicit bench(const config::dynamic_batching& how = {}, std::size_t most = 100)
      : queue{model(how), most} {
    queue.add_instance([this] { ++roused; });
    queue.set_reminder([this] { ++reminded; });
  }

  static std::shared_ptr<const config::triton_model> model(const config::dynamic_batching& how) {
    auto made = std::make_shared<config::triton_model>();
    made->name = "m";
    made->max_batch_size = {4, {}};
    made->dynamic_batching = how;
    made->inputs.emplace_back().name = "IN";
    return made;
  }

  std::shared_ptr<fate> add(wish w = {}) {
    auto request = std::make_shared<inference_request>();
    backends::request tensors;
    tensors.inputs.push_back({"IN", backends::datatype::bytes, {w.rows, w.width}, ""});
    request->tensors = std::make_shared<const backends::request>(std::move(tensors));
    request->batch_size = static_cast<std::uint32_t>(w.rows);
    request->priority = w.priority;
    request->timeout = w.timeout;
    auto sink = std::make_shared<fate>();
    if (auto taken = queue.push(request, sink, now); !taken)
      sink->why = taken.error().note;
    return sink;
  }

  std::vector<response_sink_ptr> take() {
    std::vector<response_sink_ptr> all;
    for (const auto& job : queue.take(0, now))
      all.push_back(job.sink);
    return all;
  }

  time_point now{1h};
  int roused = 0;
  int reminded = 0;
  custom_queue queue;
};

using sinks = std::vector<response_sink_ptr>;

} // namespace

TEST_CASE("what waits goes together up to the largest batch, in order") {
  bench b;
  const auto one = b.add();
  const auto two = b.add({.rows = 2});
  const auto three = b.add({.rows = 2});
  CHECK_FALSE(one->accepted);
  CHECK(b.take() == sinks{one, two});
  CHECK(one->accepted);
  CHECK(b.take() == sinks{three});
  CHECK(b.take().empty());
}

TEST_CASE("other shapes end a batch, and wait for the next") {
  bench b;
  const auto one = b.add();
  const auto wide = b.add({.width = 2});
  const auto last = b.add();
  CHECK(b.take() == sinks{one});
  CHECK(b.take() == sinks{wide});
  CHECK(b.take() == sinks{last});
}

TEST_CASE("a preferred size goes at once, the rest when the oldest has waited") {
  bench b{{.preferred_batch_sizes = {2}, .max_queue_delay_us = 1000}};
  const auto one = b.add();
  CHECK(b.take().empty());
  CHECK(b.queue.look(b.now) == b.now + 1ms);
  b.now += 400us;
  const auto two = b.add();
  const auto three = b.add();
  CHECK(b.take() == sinks{one, two});
  CHECK(b.queue.look(b.now) == b.now + 1ms);
  b.now += 1ms;
  const auto four = b.add({.rows = 2});
  // It has waited, so that all go that can.
  CHECK(b.take() == sinks{three, four});
}

TEST_CASE("sizes beyond the preferred ones do not join them") {
  bench b{{.preferred_batch_sizes = {3}}};
  const auto one = b.add({.rows = 2});
  const auto two = b.add({.rows = 2});
  CHECK(b.take() == sinks{one});
  CHECK(b.take() == sinks{two});
}

TEST_CASE("priorities go first, and late requests behind the others of theirs") {
  bench b{{.priority_levels = 2,
           .default_priority_level = 2,
           .default_queue_policy = {.reject = false, .allow_timeout_override = true}}};
  const auto late = b.add({.rows = 4, .timeout = 5ms});
  const auto low = b.add({.rows = 4});
  const auto high = b.add({.rows = 4, .priority = 1});
  CHECK(b.queue.look(b.now) == b.now + 5ms);
  b.now += 5ms;
  CHECK(b.take() == sinks{high});
  CHECK(b.take() == sinks{low});
  CHECK(b.take() == sinks{late});
}

TEST_CASE("late requests are refused where the policy says so, and only then") {
  bench b{{.default_queue_policy = {.default_timeout_us = 2000, .allow_timeout_override = true}}};
  const auto usual = b.add();
  const auto sooner = b.add({.timeout = 1ms});
  const auto not_later = b.add({.timeout = 1h});
  b.now += 1ms;
  static_cast<void>(b.queue.look(b.now));
  CHECK(sooner->why == "Request timeout expired");
  CHECK(usual->why.empty());
  b.now += 1ms;
  CHECK(b.take().empty());
  CHECK(usual->why == "Request timeout expired");
  CHECK(not_later->why == "Request timeout expired");
  CHECK_FALSE(usual->accepted);
}

TEST_CASE("a queue has a limit, each priority its own, and an end") {
  config::dynamic_batching how{.priority_levels = 2, .default_priority_level = 2};
  how.priority_queue_policy[1] = {.max_queue_size = 1};
  bench b{how, 3};
  const auto first = b.add({.priority = 1});
  CHECK(b.add({.priority = 1})->why == "1 requests wait for model 'm'; try again later");
  b.add();
  const auto gone = b.add();
  CHECK(b.add()->why == "3 requests wait for model 'm'; try again later");
  b.queue.abandon(gone);
  CHECK(b.queue.size() == 2);
  b.queue.close({errc::peer_down, "over"});
  CHECK(first->why == "over");
  CHECK(b.add()->why == "over");
  CHECK(b.take().empty());
}

TEST_CASE("an idle instance is roused for what is due, once, and one that is away never") {
  bench b;
  const auto first = b.add({.rows = 4});
  CHECK(b.roused == 0);
  b.queue.enter(0);
  CHECK(b.roused == 1);
  b.add({.rows = 4});
  CHECK(b.roused == 1);
  CHECK(b.queue.unanswered() == 3);
  CHECK(b.take() == sinks{first});
  CHECK(b.take().size() == 1);
  CHECK(b.take().empty());
  CHECK(b.queue.unanswered() == 0);
  b.add({.rows = 4});
  CHECK(b.roused == 2);
  b.queue.leave(0);
  b.add({.rows = 4});
  CHECK(b.roused == 2);
  b.queue.enter(0);
  CHECK(b.roused == 3);
}

TEST_CASE("what leaves goes to another instance, and what is to come is reminded of once") {
  bench b{{.preferred_batch_sizes = {4}, .max_queue_delay_us = 1000}};
  int other = 0;
  CHECK(b.queue.add_instance([&] { ++other; }) == 1);
  b.queue.enter(0);
  b.queue.enter(1);
  b.add();
  b.add();
  CHECK(b.roused + other == 0);
  CHECK(b.reminded == 1);
  b.now += 1ms;
  CHECK_FALSE(b.queue.look(b.now));
  CHECK(b.roused == 1);
  CHECK(other == 1);
  // The first takes nothing, having lost its process; the second had found it taken.
  CHECK(b.queue.take(1, b.now).size() == 2);
  CHECK(b.queue.take(1, b.now).empty());
  b.queue.leave(0);
  b.add({.rows = 4});
  CHECK(other == 2);
}
