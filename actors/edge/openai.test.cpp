#include "actors/edge/api_keys.hpp"
#include "actors/edge/openai_request.hpp"
#include "actors/edge/openai_response.hpp"
#include "actors/edge/routes.hpp"
#include "actors/edge/sink.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <string>
#include <vector>

using namespace troupe;
using namespace troupe::actors;
using nlohmann::json;

namespace {

checked<api_request> completion(const std::string& fields) {
  return parse_completion(R"({"model":"m","prompt":"x")" + fields + "}", {4});
}

checked<api_request> chat(const std::string& messages) {
  return parse_chat(R"({"model":"m","messages":)" + messages + "}");
}

/// The field that a completion with these fields is refused for, or "taken".
std::string refused_for(const std::string& fields) {
  const auto got = completion("," + fields);
  return got ? "taken" : got.error().param;
}

response_part part(std::string text, std::uint32_t tokens = 1) {
  response_part p;
  p.text = std::move(text);
  p.tokens = tokens;
  return p;
}

response_part last(std::string text, engine::finish_reason why = engine::finish_reason::stop) {
  auto p = part(std::move(text));
  p.finish = why;
  p.counts = {3, 2, 1};
  return p;
}

} // namespace

TEST_CASE("every parameter of a completion is read") {
  const auto got = completion(
      R"(,"temperature":0.5,"top_p":0.9,"top_k":-1,"min_p":0.1,"seed":-7,"max_tokens":5,"stop":["a","b"],
      "stop_token_ids":[3],"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true},
      "include_stop_str_in_output":true,"skip_special_tokens":false,"add_special_tokens":false,
      "priority":-2,"cache_salt":"s","user":"u","n":1,"presence_penalty":0.0,"echo":false,"logprobs":null,
      "suffix":null,"logit_bias":{},"best_of":1,"response_format":{"type":"text"},"metadata":{})");
  REQUIRE(got);
  REQUIRE(got->prompts.size() == 1);
  const auto& r = got->prompts[0];
  CHECK(*r.prompt_text == "x");
  CHECK(*r.temperature == 0.5F);
  CHECK(*r.top_p == 0.9F);
  CHECK(*r.top_k == -1);
  CHECK(*r.min_p == 0.1F);
  CHECK(*r.seed == static_cast<std::uint64_t>(-7));
  CHECK(*r.max_tokens == 5);
  CHECK(r.stop == std::vector<std::string>{"a", "b"});
  CHECK(r.stop_token_ids == std::vector<token_id>{3});
  CHECK(*r.ignore_eos);
  CHECK(r.include_stop_str_in_output);
  CHECK_FALSE(r.skip_special_tokens);
  CHECK_FALSE(r.add_special_tokens);
  CHECK(r.priority == -2);
  CHECK(r.cache_salt == "s");
  CHECK(got->stream);
  CHECK(got->include_usage);
}

TEST_CASE("a completion that says nothing gets 16 tokens, a chat what fits") {
  CHECK(!completion("")->prompts[0].max_tokens);
  CHECK(*completion("")->prompts[0].usual_max_tokens == 16);
  CHECK_FALSE(chat(R"([{"role":"user","content":"hi"}])")->prompts[0].max_tokens.has_value());
}

TEST_CASE("prompts come as text, ids and lists of both") {
  const auto read = [](const std::string& prompt) {
    return parse_completion(R"({"model":"m","prompt":)" + prompt + "}", {4});
  };
  CHECK(*read(R"(["one"])")->prompts.at(0).prompt_text == "one");
  CHECK(*read("[1,2]")->prompts.at(0).prompt_ids == std::vector<token_id>{1, 2});
  CHECK(*read("[[1],[2,3]]")->prompts.at(1).prompt_ids == std::vector<token_id>{2, 3});
  CHECK(read(R"(["a","b","c","d"])")->prompts.size() == 4);
  for (const auto* bad : {R"(["a","b","c","d","e"])", "[]", "[[]]", "7", "[-1]", "[1.5]", "{}",
                          "null", R"([1,"a"])", "[99999999999]"}) {
    INFO(bad);
    const auto got = read(bad);
    REQUIRE_FALSE(got);
    CHECK(got.error().status == 400);
    CHECK(got.error().param.substr(0, 6) == "prompt");
  }
}

TEST_CASE("what is out of range or not supported is refused by name") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"("temperature":-1)", "temperature"},
      {R"("temperature":"hot")", "temperature"},
      {R"("temperature":true)", "temperature"},
      {R"("top_p":0)", "top_p"},
      {R"("top_p":1.01)", "top_p"},
      {R"("top_k":-2)", "top_k"},
      {R"("top_k":1.0)", "top_k"},
      {R"("min_p":-0.1)", "min_p"},
      {R"("max_tokens":0)", "max_tokens"},
      {R"("max_tokens":-5)", "max_tokens"},
      {R"("max_tokens":18446744073709551615)", "max_tokens"},
      {R"("seed":1.5)", "seed"},
      {R"("stop":[""])", "stop[0]"},
      {R"("stop":["a",4])", "stop[1]"},
      {R"("stop_token_ids":[-1])", "stop_token_ids[0]"},
      {R"("stop_token_ids":3)", "stop_token_ids"},
      {R"("stream":"yes")", "stream"},
      {R"("stream_options":{"include_usage":true})", "stream_options"},
      {R"("stream":true,"stream_options":{"x":1})", "stream_options.x"},
      {R"("n":2)", "n"},
      {R"("best_of":3)", "best_of"},
      {R"("echo":true)", "echo"},
      {R"("suffix":"end")", "suffix"},
      {R"("logprobs":21)", "logprobs"},
      {R"("presence_penalty":0.1)", "presence_penalty"},
      {R"("frequency_penalty":-0.1)", "frequency_penalty"},
      {R"("logit_bias":{"5":1})", "logit_bias"},
      {R"("response_format":{"type":"json_object"})", "response_format"},
      {R"("tempratur":1)", "tempratur"},
      {R"("messages":[])", "messages"},
  };
  for (const auto& [fields, param] : cases) {
    INFO(fields);
    CHECK(refused_for(fields) == param);
  }
  CHECK(completion(R"(,"tempratur":1)").error().message.find("'temperature'") != std::string::npos);
}

TEST_CASE("broken JSON is refused with its place") {
  const auto broken = parse_completion("{\n \"model\": nope}", {1});
  REQUIRE_FALSE(broken);
  CHECK(broken.error().message.find("line 2") != std::string::npos);
  for (const auto& body : std::vector<std::string>{
           "", "[]", "7", "{\"model\":\"m\",\"prompt\":\"\xff\"}", "{\"temperature\": NaN}",
           "{\"temperature\": 1e999}", "{\"a\":" + std::string(100000, '[')}) {
    INFO(body.substr(0, 40));
    const auto got = parse_completion(body, {1});
    REQUIRE_FALSE(got);
    CHECK(got.error().status == 400);
    CHECK(got.error().code == "invalid_json");
  }
  CHECK(parse_completion(R"({"prompt":"x"})", {1}).error().param == "model");
  CHECK(parse_completion(R"({"model":"m"})", {1}).error().param == "prompt");
}

TEST_CASE("messages are checked and parts are joined") {
  const auto got = chat(R"([{"role":"developer","content":"s"},
    {"role":"user","name":"n","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
    {"role":"assistant","content":null,"tool_calls":[],"refusal":null}])");
  REQUIRE(got);
  const auto messages = json::parse(*got->prompts[0].messages_json);
  CHECK(messages[0]["role"] == "system");
  CHECK(messages[1]["content"] == "a\nb");
  CHECK(messages[1]["name"] == "n");
  CHECK(messages[2]["content"] == "");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"[]", "messages"},
      {"7", "messages"},
      {"[7]", "messages[0]"},
      {R"([{"content":"x"}])", "messages[0].role"},
      {R"([{"role":"king","content":"x"}])", "messages[0].role"},
      {R"([{"role":"user"}])", "messages[0].content"},
      {R"([{"role":"user","content":null}])", "messages[0].content"},
      {R"([{"role":"user","content":7}])", "messages[0].content"},
      {R"([{"role":"user","content":[{"type":"image_url","image_url":{}}]}])",
       "messages[0].content[0]"},
      {R"([{"role":"user","content":"x","tool_calls":[{}]}])", "messages[0].tool_calls"},
      {R"([{"role":"user","content":"x","mood":"glad"}])", "messages[0].mood"},
  };
  for (const auto& [messages_json, param] : cases) {
    INFO(messages_json);
    const auto bad = chat(messages_json);
    REQUIRE_FALSE(bad);
    CHECK(bad.error().param == param);
  }
}

TEST_CASE("no mutation of a request ends in anything but a value or a 400") {
  const std::string whole =
      R"({"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a\u00e9"}]}],"seed":5,"stop":["x"]})";
  splitmix64 random{20261123};
  int taken = 0;
  for (int i = 0; i < 20000; ++i) {
    auto text = whole;
    for (auto changes = 1 + random.below(4); changes > 0; --changes)
      text[random.below(text.size())] = static_cast<char>(random.below(256));
    text.resize(random.below(8) == 0 ? random.below(text.size()) : text.size());
    const auto got = parse_chat(text);
    taken += got ? 1 : 0;
    if (!got)
      REQUIRE(got.error().status == 400);
  }
  CHECK(taken > 0);
}

TEST_CASE("objects have OpenAI's shapes") {
  answer_head head{.id = "chatcmpl-1", .chat = true, .created = 9, .model = "m"};
  const auto whole = json::parse(full_answer(head, {last("hello")}));
  CHECK(whole["object"] == "chat.completion");
  CHECK(whole["choices"][0]["message"]["role"] == "assistant");
  CHECK(whole["choices"][0]["message"]["content"] == "hello");
  CHECK(whole["choices"][0]["finish_reason"] == "stop");
  CHECK(whole["choices"][0]["logprobs"].is_null());
  CHECK(whole["usage"]["total_tokens"] == 5);
  CHECK(whole["usage"]["prompt_tokens_details"]["cached_tokens"] == 1);
  head.null_usage = true;
  const auto first = stream_event(head, 0, part("he"), true);
  REQUIRE(first.substr(0, 6) == "data: ");
  REQUIRE(first.substr(first.size() - 2) == "\n\n");
  const auto chunk = json::parse(first.substr(6));
  CHECK(chunk["object"] == "chat.completion.chunk");
  CHECK(chunk["choices"][0]["delta"]["role"] == "assistant");
  CHECK(chunk["choices"][0]["finish_reason"].is_null());
  CHECK(chunk["usage"].is_null());
  const auto counts = json::parse(usage_event(head, {3, 2, 1}).substr(6));
  CHECK(counts["choices"].empty());
  CHECK(counts["usage"]["completion_tokens"] == 2);
  head.chat = false;
  auto stopped = last("x");
  stopped.stop_string = "END";
  const auto text = json::parse(stream_event(head, 1, stopped, false).substr(6));
  CHECK(text["object"] == "text_completion");
  CHECK(text["choices"][0]["index"] == 1);
  CHECK(text["choices"][0]["text"] == "x");
  CHECK(text["choices"][0]["stop_reason"] == "END");
}

TEST_CASE("backends' errors have the right status outside") {
  CHECK(to_api_error({errc::invalid_argument, ""}).status == 400);
  CHECK(to_api_error({errc::invalid_argument, "300 tokens exceed max_model_len 256"}).code ==
        "context_length_exceeded");
  CHECK(to_api_error({errc::unsupported, ""}).status == 400);
  CHECK(to_api_error({errc::not_found, ""}).code == "model_not_found");
  CHECK(to_api_error({errc::busy, ""}).status == 429);
  CHECK(to_api_error({errc::pool_exhausted, ""}).retry_after_s > 0);
  CHECK(to_api_error({errc::draining, ""}).status == 503);
  CHECK(to_api_error({errc::unauthorized, ""}).code == "invalid_api_key");
  CHECK(to_api_error({errc::timed_out, ""}).status == 504);
  CHECK(to_api_error({errc::peer_down, ""}).status == 503);
  CHECK(to_api_error({errc::internal, ""}).status == 500);
  const auto body = json::parse(to_json(to_api_error({errc::busy, "full"})));
  CHECK(body["error"]["message"] == "full");
  CHECK(body["error"]["param"].is_null());
}

TEST_CASE("an inbox merges what nobody has looked at and wakes once") {
  int wakes = 0;
  const auto box = std::make_shared<inbox>(2, [&wakes] { ++wakes; });
  box->put(1, part("a"));
  box->put(1, part("b"));
  box->put(0, last("c"));
  CHECK(wakes == 1);
  const auto got = box->take();
  REQUIRE(got.size() == 2);
  CHECK(got[0].part.text == "c");
  CHECK(got[1].part.text == "ab");
  CHECK(got[1].part.tokens == 2);
  CHECK(box->take().empty());
  box->put(0, part("d"));
  CHECK(wakes == 2);
  box->close();
  CHECK(box->take().empty());
}

TEST_CASE("a sink that is dropped before the end says so") {
  const auto box = std::make_shared<inbox>(1, [] {});
  std::make_shared<choice_sink>(box, 0, sink_origin{"m", {}, nullptr})->on_part(part("a"));
  const auto got = box->take();
  REQUIRE(got.size() == 1);
  CHECK(got[0].part.text == "a");
  CHECK(got[0].part.finish == engine::finish_reason::error);
  CHECK(got[0].part.why.code == errc::peer_down);
  std::make_shared<choice_sink>(box, 0, sink_origin{"m", {}, nullptr})->on_part(last("b"));
  CHECK(box->take()[0].part.finish == engine::finish_reason::stop);
}

TEST_CASE("keys are hashes, malformed files are refused with their line") {
  // The SHA-256 of "secret".
  const std::string line =
      "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b  alice\n";
  const auto keys = api_keys::parse("# keys\n\n" + line, "f");
  REQUIRE(keys);
  CHECK(keys->size() == 1);
  CHECK(keys->allow("Bearer secret"));
  CHECK(keys->allow("bearer  secret "));
  for (const auto* wrong : {"", "secret", "Bearer", "Bearer ", "Bearer Secret", "Basic secret"})
    CHECK_FALSE(keys->allow(wrong));
  CHECK(api_keys::parse(line + "sha256:abc x\n", "f").error().note.find("f:2") == 0);
  CHECK(api_keys::parse("", "f").error().code == errc::corrupt_data);
  CHECK(api_keys::load("/nonexistent/keys").error().code == errc::io_failure);
}

TEST_CASE("routes ignore queries, trailing slashes and know their methods") {
  CHECK(find_route("/v1/models?x=1").id == route_id::models);
  CHECK(find_route("/health/").id == route_id::health);
  CHECK(find_route("/v1/models/org/name%20x").rest == "org/name x");
  CHECK(find_route("/v1/models/%zz%4").rest == "%zz%4");
  CHECK(find_route("/v1/embeddings").id == route_id::unknown);
  CHECK(find_route("").id == route_id::unknown);
  CHECK(find_route("http://x:1/v1/models/a?b=c://d").rest == "a");
  CHECK(find_route("http://x").id == route_id::unknown);
  CHECK(find_route("/v1/models/http://x/health").rest == "http://x/health");
  CHECK(takes(find_route("/health"), "HEAD"));
  CHECK_FALSE(takes(find_route("/health"), "POST"));
  CHECK(takes(find_route("/v1/completions"), "POST"));
  CHECK_FALSE(takes(find_route("/v1/completions"), ""));
}
