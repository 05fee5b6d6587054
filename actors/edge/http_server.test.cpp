#include "actors/edge/test_peers.hpp"

#include <catch2/catch.hpp>

#include <fstream>
#include <thread>

using namespace troupe;
using namespace troupe::actors;
using namespace troupe::actors::testing;
using namespace std::chrono_literals;
using Catch::Matchers::Contains;

namespace {

constexpr auto completions = "/v1/completions";
constexpr auto question = R"({"model":"m","prompt":"hi"})";
constexpr auto question_stream = R"({"model":"m","prompt":"hi","stream":true})";

http_options quick() {
  http_options o;
  o.port = 0;
  return o;
}

/// An edge before a backend that does as it is told.
struct stage {
  explicit stage(http_options o = quick()) : options{std::move(o)} {
    script->execute = [](const inference_request&, const response_sink_ptr& sink) {
      sink->on_accepted(request_id{1}, 4);
      sink->on_part(piece("to be"));
      sink->on_part(final_piece(" or not"));
    };
    backend = spawn_fake(system, script);
    publish();
    auto started = http_server::start(options, desk, numbers);
    REQUIRE(started);
    server = std::move(*started);
  }

  ~stage() {
    server.reset();
    caf::anon_send_exit(backend, caf::exit_reason::user_shutdown);
    backend = nullptr;
    desk->publish(std::make_shared<front_view>());
  }

  void publish(const std::string& state = "ready", bool draining = false) {
    auto view = std::make_shared<front_view>();
    model_entry m;
    m.name = "m";
    m.served_names = {"m", "alias"};
    m.backend = backend;
    m.state = state;
    m.max_model_len = 256;
    view->models = {m};
    view->draining = draining;
    desk->publish(view);
  }

  /// Sends one request and reads its answer up to `mark`.
  std::string talk(const std::string& bytes, const std::string& mark = "\r\n\r\n") const {
    raw_client c{server->port()};
    c.send(bytes);
    return c.read_until(mark);
  }

  std::string post(const std::string& body, const std::string& mark) const {
    raw_client c{server->port()};
    c.send_post(completions, body);
    return c.read_until(mark);
  }

  http_options options;
  caf::actor_system_config config;
  caf::actor_system system{config};
  std::shared_ptr<backend_script> script = std::make_shared<backend_script>();
  std::shared_ptr<front_desk> desk = std::make_shared<front_desk>();
  std::shared_ptr<metrics> numbers = std::make_shared<metrics>();
  backend_actor backend;
  std::unique_ptr<http_server> server;
};

} // namespace

TEST_CASE("a completion is answered whole and as a stream") {
  stage s;
  const auto whole = s.post(question, "}}}");
  CHECK_THAT(whole, Contains("HTTP/1.1 200 OK") && Contains(R"("text":"to be or not")") &&
                        Contains(R"("finish_reason":"stop")") && Contains(R"("total_tokens":6)"));
  const auto stream = s.post(question_stream, "[DONE]\n\n");
  CHECK_THAT(stream, Contains("text/event-stream") && Contains("data: {") && Contains(" or not"));
  const auto text = s.numbers->render();
  CHECK_THAT(text,
             Contains("vllm:e2e_request_latency_seconds_count{engine=\"0\",model_name=\"m\"} 2"));
}

TEST_CASE("several prompts are several choices") {
  stage s;
  s.script->execute = [](const inference_request& r, const response_sink_ptr& sink) {
    sink->on_part(final_piece(*r.prompt_text + "!"));
  };
  CHECK_THAT(s.post(R"({"model":"alias","prompt":["a","b"]})", "}}}"),
             Contains(R"("index":1,"text":"b!")") && Contains(R"("prompt_tokens":8)"));
}

TEST_CASE("more prompts than the cluster ever takes are refused for good") {
  auto o = quick();
  o.max_queued_requests = 2;
  stage s{o};
  CHECK_THAT(s.post(R"({"model":"m","prompt":["a","b","c"]})", "}}"),
             Contains(" 400 ") && Contains("at most 2") && Contains("limits.max_queued_requests") &&
                 !Contains("Retry-After"));
  CHECK_THAT(s.post(R"({"model":"m","prompt":["a","b"]})", "}}}"), Contains(" 200 "));
}

TEST_CASE("one connection serves many requests, sent ahead or not") {
  stage s;
  raw_client c{s.server->port()};
  c.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK_THAT(c.read_until("0.1.0"), Contains("alive"));
  c.send_post(completions, question);
  c.send("HEAD /v1/models HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine-7\r\n\r\n");
  const auto seen = c.read_until("mine-7");
  CHECK_THAT(seen, Contains("to be or not") && Contains("mine-7"));
  CHECK(s.numbers->render().find("path=\"/health\",status=\"200\"} 1") != std::string::npos);
}

TEST_CASE("thousands of requests sent ahead are answered one by one, in order") {
  stage s;
  raw_client c{s.server->port()};
  constexpr int all = 6000;
  std::thread sender{[&] {
    for (int i = 0; i < all; ++i)
      c.send("GET /v1/models/m" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n\r\n");
    c.send("GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  }};
  const auto& seen = c.read_all();
  sender.join();
  std::size_t at = 0;
  int answered = 0;
  for (; answered < all && at != std::string::npos; ++answered)
    at = seen.find("The model 'm" + std::to_string(answered) + "' does not exist", at);
  CHECK(answered == all);
  CHECK(at != std::string::npos);
}

TEST_CASE("errors have their status and OpenAI's shape") {
  stage s;
  CHECK_THAT(s.talk("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", "}}"),
             Contains("404") && Contains(R"({"error":{)"));
  CHECK_THAT(s.talk("GET /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n", "}}"),
             Contains("405") && Contains("Allow: POST"));
  CHECK_THAT(s.talk("OPTIONS /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n"), Contains("204"));
  CHECK_THAT(s.post("{", "}}"), Contains("400") && Contains("invalid_json"));
  CHECK_THAT(s.post(R"({"model":"x","prompt":"p"})", "}}"),
             Contains("404") && Contains("model_not_found"));
  CHECK_THAT(s.post(R"({"model":"m","prompt":"p","n":3})", "}}"), Contains(R"("param":"n")"));
  s.publish("loading");
  CHECK_THAT(s.post(question, "}}"), Contains("503") && Contains("Retry-After"));
  s.publish("ready", true);
  CHECK_THAT(s.post(question, "}}"), Contains("503") && Contains("draining"));
  CHECK_THAT(s.talk("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n", "}"),
             Contains("503") && Contains("draining"));
  s.publish();
  s.desk->mark_progress(std::chrono::steady_clock::now());
  CHECK_THAT(s.talk("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n", "}"), Contains("200"));
  CHECK(s.script->executed == 0);
}

TEST_CASE("a backend's error is a status before the stream and an event within") {
  stage s;
  response_part bad;
  bad.finish = engine::finish_reason::error;
  bad.why = {errc::busy, "the queue is full"};
  s.script->execute = [bad](const inference_request&, const response_sink_ptr& sink) {
    sink->on_part(bad);
  };
  CHECK_THAT(s.post(question, "}}"),
             Contains("429") && Contains("Retry-After: 1") && Contains("queue"));
  s.publish("restarting"); // the router lets it wait
  CHECK_THAT(s.post(question, "}}"), Contains("429"));
  s.publish();
  CHECK_THAT(s.post(question_stream, "}}"), Contains("429"));
  response_sink_ptr held;
  std::atomic<bool> ready{false};
  s.script->execute = [&](const inference_request&, const response_sink_ptr& sink) {
    sink->on_part(piece("begun"));
    held = sink;
    ready = true;
  };
  raw_client c{s.server->port()};
  c.send_post(completions, question_stream);
  CHECK_THAT(c.read_until("begun"), Contains("200 OK"));
  REQUIRE(eventually([&] { return ready.load(); }));
  held->on_part(bad);
  held.reset();
  const auto seen = c.read_all();
  CHECK_THAT(seen, Contains("data: {\"error\"") && !Contains("[DONE]") && !Contains("timed out"));
}

TEST_CASE("a backend that dies with a request ends it with an error") {
  stage s;
  s.script->execute = [](const inference_request&, const response_sink_ptr&) {};
  CHECK_THAT(s.post(question, "}}"), Contains("503") && Contains("restarted"));
  caf::anon_send_exit(s.backend, caf::exit_reason::kill);
  REQUIRE(eventually([&] { return s.post(question, "}}").find("503") != std::string::npos; }));
}

TEST_CASE("a client that goes away is abandoned, streaming or waiting") {
  stage s;
  std::mutex mutex;
  std::vector<response_sink_ptr> held;
  s.script->execute = [&](const inference_request&, const response_sink_ptr& sink) {
    const std::lock_guard lock{mutex};
    held.push_back(sink);
  };
  for (const auto* body : {question, question_stream}) {
    const int before = s.script->abandoned;
    const int executed = s.script->executed;
    raw_client c{s.server->port()};
    c.send_post(completions, body);
    REQUIRE(eventually([&] { return s.script->executed == executed + 1; }));
    c.close();
    CHECK(eventually([&] { return s.script->abandoned == before + 1; }));
  }
  const std::lock_guard lock{mutex};
  held.clear();
}

TEST_CASE("a client that sent much ahead and goes away is abandoned") {
  auto o = quick();
  o.max_body_bytes = 1U << 20U;
  stage s{o};
  std::mutex mutex;
  std::vector<response_sink_ptr> held;
  s.script->execute = [&](const inference_request&, const response_sink_ptr& sink) {
    const std::lock_guard lock{mutex};
    held.push_back(sink);
  };
  raw_client leaver{s.server->port()};
  leaver.send_post(completions, question);
  REQUIRE(eventually([&] { return s.script->executed == 1; }));
  leaver.send(std::string(800'000, 'x'));
  leaver.close();
  CHECK(eventually([&] { return s.script->abandoned == 1; }));
  // One that sends without end is not read without end.
  raw_client sender{s.server->port()};
  sender.send_post(completions, question);
  REQUIRE(eventually([&] { return s.script->executed == 2; }));
  sender.send(std::string(30U << 20U, 'x'));
  CHECK_THAT(sender.read_all(), !Contains("timed out"));
  CHECK(eventually([&] { return s.script->abandoned == 2; }));
  const std::lock_guard lock{mutex};
  held.clear();
}

TEST_CASE("a slow reader costs one merged chunk and is cut off in the end") {
  auto o = quick();
  o.send_buffer_bytes = 4096;
  o.slow_reader_timeout = 300ms;
  stage s{o};
  std::atomic<bool> fed{false};
  std::mutex mutex;
  response_sink_ptr held;
  s.script->execute = [&](const inference_request&, const response_sink_ptr& sink) {
    // More than the buffers of both sockets hold; the backend is never slowed down by it.
    for (int i = 0; i < 2000; ++i)
      sink->on_part(piece(std::string(2000, 'x')));
    const std::lock_guard lock{mutex};
    held = sink;
    fed = true;
  };
  raw_client c{s.server->port(), 4096};
  c.send_post(completions, question_stream);
  REQUIRE(eventually([&] { return fed.load(); }));
  CHECK(eventually([&] {
    return s.numbers->render().find("troupe:slow_readers_cut_total 1") != std::string::npos;
  }));
  CHECK(eventually([&] { return s.script->abandoned == 1; }));
  const std::lock_guard lock{mutex};
  held.reset();
}

TEST_CASE("limits on head, body, time and connections are answered") {
  auto o = quick();
  o.max_header_bytes = 1024;
  o.max_body_bytes = 2048;
  o.header_timeout = 150ms;
  o.max_connections = 3;
  stage s{o};
  CHECK_THAT(
      s.talk("GET /health HTTP/1.1\r\nHost: x\r\nX: " + std::string(4000, 'y') + "\r\n\r\n", "}}"),
      Contains("431"));
  CHECK_THAT(s.talk("GET /health HTTP/1.1\r\nHost: x\r\nX: y", "}}"), Contains("408"));
  CHECK_THAT(
      s.talk("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n", "}}"),
      Contains("413"));
  CHECK_THAT(s.post(std::string(1U << 20U, ' '), "}}"), Contains("413"));
  CHECK_THAT(
      s.talk(
          "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n" +
              std::string(4096, ' ') + "\r\n",
          "}}"),
      Contains("413"));
  // All of the connections above are gone before these three are counted.
  REQUIRE(eventually(
      [&] { return s.numbers->render().find("troupe:http_connections 0") != std::string::npos; }));
  raw_client one{s.server->port()};
  raw_client two{s.server->port()};
  raw_client three{s.server->port()};
  REQUIRE(eventually(
      [&] { return s.numbers->render().find("troupe:http_connections 3") != std::string::npos; }));
  CHECK_THAT(s.talk("", "}}"), Contains("503") && Contains("connections"));
}

TEST_CASE("Expect: 100-continue and chunked bodies are understood") {
  stage s;
  raw_client c{s.server->port()};
  c.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: "
         "chunked\r\n\r\n");
  CHECK_THAT(c.read_until("\r\n\r\n"), Contains("100 Continue"));
  c.send("8\r\n{\"model\"\r\n13\r\n:\"m\",\"prompt\":\"hi\"}\r\n0\r\n\r\n");
  CHECK_THAT(c.read_until("}}}"), Contains("to be or not"));
}

TEST_CASE("the limit of a head counts its small pieces together") {
  stage s;
  const auto ask = [&s](int fields, const std::string& rest) {
    raw_client c{s.server->port()};
    c.send("GET /health HTTP/1.1\r\nHost: x\r\n");
    for (int i = 0; i < fields; ++i)
      c.send("X: y\r\n");
    c.send("\r\n" + rest);
    return c.read_until("}");
  };
  CHECK_THAT(ask(2700, ""), Contains(" 200 "));
  CHECK_THAT(ask(3000, ""), Contains(" 431 ") && !Contains(" 200 "));
  CHECK_THAT(ask(2700, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n"), Contains("alive"));
}

TEST_CASE("endless chunk extensions and trailers are refused at once") {
  stage s;
  const std::string head =
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  std::string trailers;
  for (int i = 0; i < 60'000; ++i)
    trailers += "X: y\r\n";
  const auto begin = std::chrono::steady_clock::now();
  CHECK_THAT(s.talk(head + "2;" + std::string(300'000, 'a'), "}}"), Contains(" 431 "));
  CHECK_THAT(s.talk(head + "2\r\n{}\r\n0\r\n" + trailers, "}}"), Contains(" 431 "));
  CHECK_THAT(s.talk(head + "2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n", "}}"),
             Contains("'model' is missing"));
  CHECK(std::chrono::steady_clock::now() - begin < s.options.header_timeout);
}

TEST_CASE("a head that could be read in two ways is refused, and the connection closes") {
  stage s;
  const auto ask = [&s](const std::string& lines) {
    return s.talk("POST /v1/completions HTTP/1.1\r\n" + lines + "\r\n2\r\n{}\r\n0\r\n\r\n", "");
  };
  const std::string host = "Host: x\r\n";
  const std::string chunked = "Transfer-Encoding: chunked\r\n";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {host + chunked + "Content-Length: 5\r\n", " 400 "},
      {host + "Content-Length: 5\r\n" + chunked, " 400 "},
      {host + "Transfer-Encoding: xchunked\r\nContent-Length: 12\r\n", " 400 "},
      {host + "Transfer-Encoding: xchunked\r\n", " 501 "},
      {host + "Transfer-Encoding: gzip, chunked\r\n", " 501 "},
      {host + "Transfer-Encoding: chunked, identity\r\n", " 501 "},
      {host + "Transfer-Encoding: gzip\r\n" + chunked, " 501 "},
      {chunked, " 400 "},
      {host + host + chunked, " 400 "},
      {host + chunked + "Content-Encoding: gzip\r\n", " 415 "},
      {host + chunked + "Expect: more\r\n", " 417 "},
  };
  for (const auto& [lines, status] : cases) {
    INFO(lines);
    const auto seen = ask(lines);
    CHECK_THAT(seen.substr(0, seen.find('\r')), Contains(status));
    CHECK_THAT(seen, Contains("Connection: close") && !Contains("timed out"));
  }
  const auto good =
      host + "Connection: close\r\nContent-Encoding: identity\r\nExpect: 100-Continue\r\n";
  CHECK_THAT(ask(good + "Transfer-Encoding: Chunked\r\n"), Contains("'model' is missing"));
  CHECK_THAT(s.talk("GET /health HTTP/1.0\r\n\r\n", "}"), Contains(" 200 "));
}

TEST_CASE("HTTP/1.0 gets a stream that ends by closing") {
  stage s;
  const auto seen = s.talk("POST /v1/completions HTTP/1.0\r\nContent-Length: " +
                               std::to_string(std::string_view{question_stream}.size()) +
                               "\r\n\r\n" + question_stream,
                           "");
  CHECK_THAT(seen, Contains("HTTP/1.0 200") && Contains("[DONE]") && !Contains("chunked") &&
                       !Contains("timed out"));
}

TEST_CASE("garbage never ends the edge") {
  auto o = quick();
  o.header_timeout = 100ms;
  stage s{o};
  for (const std::string& bytes : std::vector<std::string>{
           std::string("\0\1\2\3\r\n\r\n", 8), std::string{"GET\r\n\r\n"}, std::string(3000, '\n'),
           std::string{"GET / HTTP/9.9\r\n\r\n"},
           std::string{"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"},
           std::string{"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: "
                       "99999999999999999999\r\n\r\n"},
           std::string{"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
                       "chunked\r\n\r\nzz\r\n"},
           std::string{"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: "
                       "3\r\nContent-Length: 4\r\n\r\n"}})
    CHECK_THAT(s.talk(bytes, "}}"), Contains("HTTP/1.1 4") && !Contains("timed out>"));
  CHECK_THAT(s.post(question, "}}}"), Contains("to be or not"));
}

TEST_CASE("keys guard the API and nothing else") {
  const auto file = std::filesystem::temp_directory_path() / "troupe-edge-keys.test";
  std::ofstream{file}
      << "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b test\n";
  auto o = quick();
  o.api_keys_file = file;
  stage s{o};
  CHECK_THAT(s.talk("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", "}}"),
             Contains("401") && Contains("invalid_api_key"));
  CHECK_THAT(
      s.talk("GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n", "}]}"),
      Contains("200") && Contains("alias"));
  CHECK_THAT(s.talk("GET /troupe/v1/status HTTP/1.1\r\nHost: x\r\n\r\n", "}}"), Contains("401"));
  CHECK_THAT(s.talk("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"), Contains("200"));
  std::filesystem::remove(file);
}

TEST_CASE("a drain that has begun is accepted") {
  auto o = quick();
  o.drain_node = [](auto, auto, auto) { return result<void>{}; };
  stage s{o};
  CHECK_THAT(s.talk("POST /troupe/v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n"
                    R"({"node": "me"})",
                    "}"),
             Contains("HTTP/1.1 202 Accepted"));
}

TEST_CASE("a port in use is named with the mend") {
  stage s;
  auto o = quick();
  o.port = s.server->port();
  const auto second = http_server::start(o, s.desk, s.numbers);
  REQUIRE_FALSE(second);
  CHECK(second.error().code == errc::io_failure);
  CHECK_THAT(second.error().note,
             Contains("127.0.0.1:" + std::to_string(o.port)) && Contains("another port"));
}

TEST_CASE("stopping lets answers in flight end, within the deadline") {
  stage s;
  response_sink_ptr held;
  std::atomic<bool> ready{false};
  s.script->execute = [&](const inference_request&, const response_sink_ptr& sink) {
    held = sink;
    ready = true;
  };
  raw_client c{s.server->port()};
  c.send_post(completions, question);
  REQUIRE(eventually([&] { return ready.load(); }));
  std::thread finisher{[&] {
    std::this_thread::sleep_for(20ms);
    held->on_part(final_piece("the end"));
    held.reset();
  }};
  s.server->stop(10s);
  finisher.join();
  CHECK_THAT(c.read_all(), Contains("the end"));
  CHECK_THAT(s.talk("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"), !Contains("200"));
}

TEST_CASE("the edge actor owns the server and its death frees the port") {
  stage s;
  auto o = quick();
  auto first = spawn_edge(s.system, o, s.desk, s.numbers);
  REQUIRE(first);
  o.port = first->port;
  caf::anon_send_exit(first->handle, caf::exit_reason::kill);
  result<spawned_edge> second = fail(errc::busy, "");
  REQUIRE(eventually([&] {
    second = spawn_edge(s.system, o, s.desk, s.numbers);
    return second.has_value();
  }));
  raw_client c{second->port};
  c.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK_THAT(c.read_until("}"), Contains("alive"));
  caf::anon_send_exit(second->handle, caf::exit_reason::user_shutdown);
}
