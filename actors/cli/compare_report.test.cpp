#include "actors/cli/compare_report.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace troupe;
using namespace troupe::cli;

namespace {

compare_answer said(std::string text, std::string finish = "length") {
  compare_answer a;
  a.text = std::move(text);
  a.finish = std::move(finish);
  return a;
}

comparison of(double base_ms, double other_ms) {
  comparison c;
  c.base.first_token = {base_ms, base_ms};
  c.other.first_token = {other_ms, 2 * other_ms};
  c.base.tokens_per_s = 100;
  c.other.tokens_per_s = 90;
  c.answers = 4;
  c.equal = 3;
  return c;
}

} // namespace

TEST_CASE("answers of one side become figures") {
  side_tally tally;
  for (const double first : {3.0, 1.0, 2.0}) {
    auto a = said("x");
    a.first_ms = first;
    a.whole_ms = first + 8;
    a.tokens = 5;
    tally.add(a);
  }
  auto refused = said("");
  refused.refusal = "no";
  refused.first_ms = 1000;
  tally.add(refused);
  tally.add_run(2, 4, 100);
  tally.add_run(1, 4, 100);
  tally.add_run(4, 4, 100);
  const auto f = tally.figures();
  CHECK((f.first_token.p50 == 2 && f.first_token.p95 == 3));
  CHECK((f.per_token.p50 == 2 && f.whole.p50 == 10));
  CHECK((f.requests_per_s == 2 && f.tokens_per_s == 50 && f.failed == 1));
  CHECK(side_tally{}.figures().whole.p95 == 0);
}

TEST_CASE("answers part at a whole character, a finish reason or a refusal") {
  CHECK(difference_of(said("abcd"), said("abxd")).character == 2);
  CHECK(difference_of(said("a\xC3\xA9"), said("a\xC3\xA8")).character == 1);
  CHECK_FALSE(said("a", "stop").same(said("a", "length")));
  CHECK(difference_of(said("a", "stop"), said("a", "length")).character == 3);
  auto refused = said("");
  refused.refusal = "400: no";
  CHECK(difference_of(said("a"), refused).other == "refused: 400: no");
  CHECK(alike({"a", "b", "c"}, {"a", "b", "d"}) == 2);
  CHECK(alike({"a"}, {"a", "b"}) == 1);
}

TEST_CASE("limits are judged one by one") {
  const auto seen = of(10, 11);
  const auto noise = of(10, 10);
  CHECK(judge({}, noise, seen).empty());
  compare_limits limits;
  limits.latency_ratio = 1.11;
  CHECK(all_kept(judge(limits, noise, seen)));
  limits.latency_ratio = 1.09;
  const auto broken = judge(limits, noise, seen);
  CHECK_FALSE(all_kept(broken));
  CHECK(broken.front().seen == Approx(1.1));
  CHECK(broken.front().noise == Approx(1.0));
  compare_limits tail;
  tail.p95_ratio = 2.1;
  CHECK_FALSE(all_kept(judge(tail, noise, seen)));
  compare_limits loss;
  loss.throughput_loss = 0.11;
  CHECK(all_kept(judge(loss, noise, seen)));
  loss.throughput_loss = 0.09;
  CHECK_FALSE(all_kept(judge(loss, noise, seen)));
  compare_limits share;
  share.equal_share = 0.75;
  CHECK(all_kept(judge(share, noise, seen)));
  share.equal_output = true;
  CHECK_FALSE(all_kept(judge(share, noise, seen)));
  auto fails = seen;
  fails.other.failed = 1;
  share.equal_output = false;
  CHECK_FALSE(all_kept(judge(share, noise, fails)));
}

TEST_CASE("a report has figures, differences and verdicts in both forms") {
  auto seen = of(10, 11);
  seen.differences.push_back(difference_of(said("abcd"), said("abxd")));
  seen.differences.back().token = 1;
  compare_limits limits;
  limits.equal_output = true;
  const auto verdicts = judge(limits, seen, seen);
  const report_head head{"base/models", "bard", "mine", "bard", "openai", "a prompt"};
  const auto text = report_text(head, {}, seen, seen, verdicts);
  CHECK(text.find("first token p50") != std::string::npos);
  CHECK(text.find("apart from character 2, token 1") != std::string::npos);
  CHECK(text.find("BROKEN") != std::string::npos);
  const auto json = nlohmann::json::parse(report_json(head, {}, seen, seen, verdicts));
  CHECK(json["result"]["latency_ms"]["first_token.p50"]["ratio"] == 1.1);
  CHECK(json["result"]["output"]["differences"][0]["token"] == 1);
  CHECK(json["result"]["throughput"]["ratio"] == 0.9);
  CHECK(json["first_prompt"] == "a prompt");
  CHECK(json["kept"] == false);
}
