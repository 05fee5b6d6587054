#include "actors/cli/compare_report.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

namespace troupe::cli {

namespace {

using json = nlohmann::ordered_json;

double ratio(double of, double to) { return to > 0 ? of / to : 0; }

double rounded(double x) { return static_cast<double>(std::llround(x * 1e4)) / 1e4; }

/// Tokens a second, or requests where tokens are not counted.
double pace_of(const side_figures& side, const comparison& both) {
  return both.base.tokens_per_s > 0 && both.other.tokens_per_s > 0 ? side.tokens_per_s
                                                                   : side.requests_per_s;
}

double share_equal(const comparison& c) {
  return ratio(static_cast<double>(c.equal), static_cast<double>(c.answers));
}

/// A row of the report: a figure of both sides.
struct row {
  const char* key;
  const char* name;
  double (*of)(const side_figures& side);
  /// Bounded by the limit of p95 and not by that of the median.
  bool tail;
};

constexpr row rows[] = {
    {"first_token.p50", "first token p50", [](const side_figures& s) { return s.first_token.p50; },
     false},
    {"first_token.p95", "first token p95", [](const side_figures& s) { return s.first_token.p95; },
     true},
    {"per_token.p50", "per token p50", [](const side_figures& s) { return s.per_token.p50; },
     false},
    {"per_token.p95", "per token p95", [](const side_figures& s) { return s.per_token.p95; }, true},
    {"whole.p50", "whole answer p50", [](const side_figures& s) { return s.whole.p50; }, false},
    {"whole.p95", "whole answer p95", [](const side_figures& s) { return s.whole.p95; }, true},
};

double ratio_of(const row& what, const comparison& c) {
  return ratio(what.of(c.other), what.of(c.base));
}

double pace_ratio(const comparison& c) { return ratio(pace_of(c.other, c), pace_of(c.base, c)); }

std::string excerpt(const std::string& text, std::size_t from) {
  constexpr std::size_t before = 16;
  constexpr std::size_t longest = 48;
  auto begin = from > before ? from - before : 0;
  while (begin > 0 && begin < text.size() && (text[begin] & '\xC0') == '\x80')
    --begin;
  return json(text.substr(std::min(begin, text.size()), longest))
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

json figures_json(const comparison& c) {
  json made;
  for (const auto& one : rows)
    made["latency_ms"][one.key] = {{"against", rounded(one.of(c.base))},
                                   {"custom", rounded(one.of(c.other))},
                                   {"ratio", rounded(ratio_of(one, c))}};
  made["throughput"] = {
      {"tokens_per_s",
       {{"against", rounded(c.base.tokens_per_s)}, {"custom", rounded(c.other.tokens_per_s)}}},
      {"requests_per_s",
       {{"against", rounded(c.base.requests_per_s)}, {"custom", rounded(c.other.requests_per_s)}}},
      {"ratio", rounded(pace_ratio(c))}};
  made["output"] = {{"answers", c.answers},
                    {"equal", c.equal},
                    {"share", rounded(share_equal(c))},
                    {"differences", json::array()}};
  for (const auto& d : c.differences) {
    json one{{"round", d.round},
             {"prompt", d.prompt},
             {"character", d.character},
             {"against", d.base},
             {"custom", d.other}};
    one["token"] = d.token ? json(*d.token) : json(nullptr);
    made["output"]["differences"].push_back(std::move(one));
  }
  made["failed"] = {{"against", c.base.failed}, {"custom", c.other.failed}};
  return made;
}

} // namespace

quantiles quantiles_of(std::vector<double> figures) {
  if (figures.empty())
    return {};
  std::sort(figures.begin(), figures.end());
  const auto at = [&](double share) {
    const auto last = static_cast<double>(figures.size() - 1);
    return figures[static_cast<std::size_t>(std::llround(share * last))];
  };
  constexpr double middle = 0.5;
  constexpr double tail = 0.95;
  return {at(middle), at(tail)};
}

void side_tally::add(const compare_answer& answer) {
  if (!answer.refusal.empty()) {
    ++failed_;
    return;
  }
  first_.push_back(answer.first_ms);
  whole_.push_back(answer.whole_ms);
  const auto steps = answer.tokens > 0 ? answer.tokens : answer.parts;
  if (steps > 1)
    each_.push_back((answer.whole_ms - answer.first_ms) / static_cast<double>(steps - 1));
}

void side_tally::add_run(double seconds, std::uint64_t requests, std::uint64_t tokens) {
  requests_per_s_.push_back(ratio(static_cast<double>(requests), seconds));
  tokens_per_s_.push_back(ratio(static_cast<double>(tokens), seconds));
}

side_figures side_tally::figures() const {
  return {.first_token = quantiles_of(first_),
          .per_token = quantiles_of(each_),
          .whole = quantiles_of(whole_),
          .requests_per_s = quantiles_of(requests_per_s_).p50,
          .tokens_per_s = quantiles_of(tokens_per_s_).p50,
          .failed = failed_};
}

difference difference_of(const compare_answer& base, const compare_answer& other) {
  const auto whole = [](const compare_answer& a) {
    if (!a.refusal.empty())
      return "refused: " + a.refusal;
    return a.finish.empty() ? a.text : a.text + " [" + a.finish + "]";
  };
  difference made;
  made.base = whole(base);
  made.other = whole(other);
  const auto parts =
      std::mismatch(made.base.begin(), made.base.end(), made.other.begin(), made.other.end());
  made.character = static_cast<std::size_t>(parts.first - made.base.begin());
  while (made.character > 0 && made.character < made.base.size() &&
         (made.base[made.character] & '\xC0') == '\x80')
    --made.character;
  return made;
}

std::size_t alike(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                                  a.begin());
}

std::vector<verdict> judge(const compare_limits& limits, const comparison& noise,
                           const comparison& seen) {
  std::vector<verdict> all;
  for (const auto& one : rows) {
    const auto& limit = one.tail ? limits.p95_ratio : limits.latency_ratio;
    const double is = ratio_of(one, seen);
    if (limit && one.of(seen.base) > 0)
      all.push_back({std::string{"latency ratio, "} + one.name, *limit, is, ratio_of(one, noise),
                     is <= *limit});
  }
  if (limits.throughput_loss) {
    const double loss = 1 - pace_ratio(seen);
    all.push_back({"throughput loss", *limits.throughput_loss, loss, 1 - pace_ratio(noise),
                   loss <= *limits.throughput_loss});
  }
  const auto least = limits.equal_output ? std::optional<double>{1} : limits.equal_share;
  if (least)
    all.push_back({"share of equal answers", *least, share_equal(seen), share_equal(noise),
                   share_equal(seen) >= *least});
  if (limits.any()) {
    const auto more =
        seen.other.failed > seen.base.failed ? seen.other.failed - seen.base.failed : 0;
    all.push_back({"answers that fail here alone", 0, static_cast<double>(more), 0, more == 0});
  }
  return all;
}

bool all_kept(const std::vector<verdict>& all) {
  return std::all_of(all.begin(), all.end(), [](const verdict& v) { return v.kept; });
}

std::string report_text(const report_head& head, const compare_options& o, const comparison& noise,
                        const comparison& seen, const std::vector<verdict>& verdicts) {
  auto text = fmt::format("custom   {}, model {}\nagainst  {}, model {}\nthrough {}, {} rounds; "
                          "latencies one at a time, in ms; throughput {} at a time\n\n",
                          head.other, head.other_model, head.base, head.base_model, head.api,
                          o.rounds, o.concurrency);
  text +=
      fmt::format("{:<18} {:>11} {:>11} {:>7} {:>7}\n", "", "against", "custom", "ratio", "A/A");
  const auto line = [&](const char* name, double base, double other, double noise_ratio) {
    text += fmt::format("{:<18} {:>11.3f} {:>11.3f} {:>7.3f} {:>7.3f}\n", name, base, other,
                        ratio(other, base), noise_ratio);
  };
  for (const auto& one : rows)
    if (one.of(seen.base) > 0)
      line(one.name, one.of(seen.base), one.of(seen.other), ratio_of(one, noise));
  const bool counted = seen.base.tokens_per_s > 0 && seen.other.tokens_per_s > 0;
  line(counted ? "tokens/s" : "requests/s", pace_of(seen.base, seen), pace_of(seen.other, seen),
       pace_ratio(noise));
  text += fmt::format("\nequal answers: {} of {} (A/A: {} of {}); refused: {} against, {} custom\n",
                      seen.equal, seen.answers, noise.equal, noise.answers, seen.base.failed,
                      seen.other.failed);
  constexpr std::size_t shown = 8;
  for (std::size_t i = 0; i < std::min(shown, seen.differences.size()); ++i) {
    const auto& d = seen.differences[i];
    const auto token = d.token ? fmt::format(", token {}", *d.token) : std::string{};
    text += fmt::format("  round {}, prompt {}: apart from character {}{}: {} became {}\n", d.round,
                        d.prompt, d.character, token, excerpt(d.base, d.character),
                        excerpt(d.other, d.character));
  }
  if (seen.differences.size() > shown)
    text += fmt::format("  and {} more; --json has all\n", seen.differences.size() - shown);
  for (const auto& v : verdicts)
    text += fmt::format("limit {}: {:.3f}, seen {:.3f} (A/A {:.3f}): {}\n", v.name, v.limit, v.seen,
                        v.noise, v.kept ? "kept" : "BROKEN");
  return text;
}

std::string report_json(const report_head& head, const compare_options& o, const comparison& noise,
                        const comparison& seen, const std::vector<verdict>& verdicts) {
  json made{{"custom", {{"file", head.other}, {"model", head.other_model}}},
            {"against", {{"file", head.base}, {"model", head.base_model}}},
            {"api", head.api},
            {"seed", o.seed},
            {"first_prompt", json(head.first_prompt)},
            {"rounds", o.rounds},
            {"concurrency", o.concurrency},
            {"noise", figures_json(noise)},
            {"result", figures_json(seen)},
            {"limits", json::array()},
            {"kept", all_kept(verdicts)}};
  for (const auto& v : verdicts)
    made["limits"].push_back({{"name", v.name},
                              {"limit", v.limit},
                              {"seen", rounded(v.seen)},
                              {"noise", rounded(v.noise)},
                              {"kept", v.kept}});
  return made.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

} // namespace troupe::cli
