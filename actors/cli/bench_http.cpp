#include "actors/cli/bench_http.hpp"

#include "actors/cli/client.hpp"
#include "actors/cli/generation.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace troupe::cli {

namespace {

using nlohmann::json;
using steady = std::chrono::steady_clock;

double since(steady::time_point begin) {
  return std::chrono::duration<double>(steady::now() - begin).count();
}

/// Reads the events of one answer as they come.
class answer_clock {
public:
  explicit answer_clock(steady::time_point begin) : begin_{begin} {}

  void take(std::string_view data) {
    const auto event = json::parse(data.begin(), data.end(), nullptr, false);
    if (!event.is_object())
      return;
    if (event.contains("error"))
      problem_ = event["error"].dump();
    const auto usage = event.find("usage");
    if (usage != event.end() && usage->is_object())
      times_.tokens = usage->value("completion_tokens", std::uint64_t{0});
    const auto choices = event.find("choices");
    if (choices == event.end() || !choices->is_array() || choices->empty())
      return;
    const double now = since(begin_);
    if (arrivals_++ == 0)
      times_.first = now;
    else
      times_.gaps.push_back(now - times_.last);
    times_.last = now;
  }

  [[nodiscard]] result<answer_times> finish(std::uint32_t expected) {
    if (!problem_.empty())
      return fail(errc::internal, problem_);
    if (times_.tokens != expected)
      return fail(errc::corrupt_data, "an answer has " + std::to_string(times_.tokens) +
                                          " tokens, and " + std::to_string(expected) +
                                          " were asked for");
    return std::move(times_);
  }

private:
  steady::time_point begin_;
  answer_times times_;
  std::uint64_t arrivals_ = 0;
  std::string problem_;
};

class server final : public load_target {
public:
  server(client_options where, std::string model, std::uint32_t vocabulary)
      : where_{std::move(where)}, model_{std::move(model)}, vocabulary_{vocabulary} {}

  result<load_times> run(const load_shape& shape) override {
    std::vector<std::string> bodies;
    for (std::uint32_t i = 0; i < shape.requests; ++i)
      bodies.push_back(body_of(shape, i));
    load_times all;
    all.answers.resize(shape.requests);
    std::optional<error> problem;
    std::mutex mutex;
    std::atomic<std::uint32_t> next{0};
    const auto work = [&] {
      auto client = open_client(where_);
      for (auto i = next++; i < shape.requests; i = next++) {
        auto answer = client ? ask(*client, bodies[i], shape.output)
                             : result<answer_times>{fail(client.error())};
        const std::lock_guard lock{mutex};
        if (answer) {
          all.answers[i] = std::move(*answer);
          continue;
        }
        next = shape.requests;
        problem = answer.error();
        return;
      }
    };
    const auto begin = steady::now();
    std::vector<std::thread> threads;
    for (std::uint32_t t = 0; t < shape.concurrency; ++t)
      threads.emplace_back(work);
    for (auto& t : threads)
      t.join();
    all.seconds = since(begin);
    if (problem)
      return fail(std::move(*problem));
    return all;
  }

  std::string metrics() override {
    auto client = open_client(where_);
    if (!client)
      return {};
    const auto answer = client->call({.path = "/metrics"});
    return answer && answer->status == 200 ? answer->body : std::string{};
  }

private:
  [[nodiscard]] std::string body_of(const load_shape& shape, std::uint32_t index) const {
    return json{{"model", model_},
                {"prompt", random_prompt(shape, index, vocabulary_)},
                {"max_tokens", shape.output},
                {"temperature", 0},
                {"ignore_eos", true},
                {"stream", true},
                {"stream_options", {{"include_usage", true}}}}
        .dump();
  }

  static result<answer_times> ask(http_client& client, const std::string& body,
                                  std::uint32_t expected) {
    answer_clock clock{steady::now()};
    event_reader events{[&](std::string_view data) { clock.take(data); }};
    const auto answer =
        client.call({.method = "POST",
                     .path = "/v1/completions",
                     .body = body,
                     .on_bytes = [&](std::string_view bytes) { events.feed(bytes); }});
    if (!answer)
      return fail(answer.error());
    if (answer->status != 200)
      return fail(errc::invalid_argument, message_of(*answer));
    return clock.finish(expected);
  }

  client_options where_;
  std::string model_;
  std::uint32_t vocabulary_;
};

} // namespace

result<std::unique_ptr<load_target>>
open_server(const client_options& where, const std::string& model, std::uint32_t vocabulary) {
  auto client = open_client(where);
  if (!client)
    return fail(client.error());
  auto name = choose_model(*client, model);
  if (!name)
    return fail(name.error());
  return std::make_unique<server>(where, std::move(*name), vocabulary);
}

} // namespace troupe::cli
