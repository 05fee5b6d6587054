#include "actors/cli/client.hpp"
#include "actors/cli/arguments.hpp"
#include "actors/cli/batch.hpp"
#include "actors/cli/generation.hpp"
#include "actors/cli/progress.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <string>
#include <vector>

using namespace troupe;
using namespace troupe::cli;
using nlohmann::json;

TEST_CASE("URLs are read in every usual form") {
  CHECK(parse_url("http://localhost:8000/v1/")->base.empty());
  CHECK(parse_url("http://h:1/base/")->base == "/base");
  CHECK(parse_url("http://[::1]:9")->host == "::1");
  CHECK(parse_url("h:7")->port == "7");
  CHECK(parse_url("http://h")->port == "80");
  for (const auto* bad :
       {"", "http://", "ftp://h", "http://h:", "http://h:0", "http://h:65536", ":1"})
    CHECK_FALSE(parse_url(bad));
  CHECK(parse_url("https://h").error().code == errc::unsupported);
}

TEST_CASE("events are the same however the bytes are cut") {
  const std::string bytes = ": note\r\ndata: {\"a\":1}\r\n\r\nevent: x\ndata:[DONE]\n\n";
  for (std::size_t cut = 1; cut <= bytes.size(); ++cut) {
    std::vector<std::string> seen;
    event_reader reader{[&](std::string_view data) { seen.emplace_back(data); }};
    for (std::size_t i = 0; i < bytes.size(); i += cut)
      reader.feed(std::string_view{bytes}.substr(i, cut));
    CHECK(seen == std::vector<std::string>{"{\"a\":1}", "[DONE]"});
  }
}

TEST_CASE("a line of a file becomes a request, or says why not") {
  sampling_options sampling;
  sampling.max_tokens = 9;
  const auto plain = make_job(1, R"({"prompt":"x","max_tokens":3,"stream":true})", "m", sampling);
  CHECK(plain.path == "/v1/completions");
  CHECK(json::parse(plain.body) == json{{"prompt", "x"}, {"max_tokens", 3}, {"model", "m"}});
  const auto chat = make_job(2, R"({"messages":[],"model":"other"})", "m", sampling);
  CHECK(chat.path == "/v1/chat/completions");
  CHECK(json::parse(chat.body)["max_tokens"] == 9);
  CHECK(json::parse(chat.body)["model"] == "other");
  for (const auto* bad : {"", "{", "[]", "7", "{}", "{\"prompts\":1}"})
    CHECK_FALSE(make_job(3, bad, "m", {}).problem.empty());
}

TEST_CASE("text that is no UTF-8 is refused with a sentence") {
  CHECK(check_text("").empty());
  CHECK(check_text("O, h\xc3\xa9las!\n\t\x01").empty());
  for (const auto* bad : {"\xff\xfe", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80"})
    CHECK(check_text(bad).find("UTF-8") != std::string::npos);
  CHECK(make_job(1, "{\"prompt\":\"\xff\"}", "m", {}).problem.find("UTF-8") != std::string::npos);
}

TEST_CASE("numbers without an end are refused") {
  for (const auto* good : {"0", "-1.5", "1e300", "x"})
    CHECK(check_finite(good).empty());
  for (const auto* bad : {"nan", "NaN", "-nan", "inf", "-Infinity", "1e999"})
    CHECK(check_finite(bad).find("finite") != std::string::npos);
}

TEST_CASE("choices stay apart") {
  outcome several;
  several.line = 4;
  take_answer(R"({"choices":[{"text":"a\nb","finish_reason":"stop"},
                 {"text":"","finish_reason":"length"},{"text":"c","finish_reason":"stop"}]})",
              several);
  const auto line = json::parse(to_json_line(several));
  CHECK(line["texts"] == json{"a\nb", "", "c"});
  CHECK(line["finish_reasons"] == json{"stop", "length", "stop"});
  CHECK_FALSE(line.contains("text"));
  outcome one;
  take_answer(R"({"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]})", one);
  CHECK(json::parse(to_json_line(one))["text"] == "x");
  outcome bad;
  take_answer(R"({"choices":[{"text":"x"},7]})", bad);
  CHECK_FALSE(bad.problem.empty());
}

TEST_CASE("the bar stays in its bounds") {
  CHECK(bar(0.5, "x").find("] ") == bar(-1, "x").find("] "));
  CHECK(bar(7, "x").find("100 %") != std::string::npos);
  CHECK(pace(0, 4, std::chrono::seconds{1}) == "0/4");
  CHECK(pace(2, 4, std::chrono::seconds{1}) == "2/4, 2.0 requests/s, 1 s left");
}

TEST_CASE("the sentence of an error body is found") {
  http_answer answer;
  answer.status = 500;
  answer.body = R"({"error":{"message":"so it is"}})";
  CHECK(message_of(answer) == "so it is");
  answer.body = "<html>";
  CHECK(message_of(answer) == "status 500: <html>");
}
