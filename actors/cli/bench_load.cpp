#include "actors/cli/bench_load.hpp"

#include "troupe/base/prng.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace troupe::cli {

namespace {

/// Takes a number above 0 and the mark behind it off the front of `text`.
std::optional<std::uint32_t> take_number(std::string_view& text, char mark) {
  const auto end = mark == 0 ? text.size() : text.find(mark);
  if (end == std::string_view::npos)
    return std::nullopt;
  std::uint32_t number = 0;
  const auto read = std::from_chars(text.data(), text.data() + end, number);
  if (read.ec != std::errc{} || read.ptr != text.data() + end || number == 0)
    return std::nullopt;
  text.remove_prefix(mark == 0 ? end : end + 1);
  return number;
}

} // namespace

std::vector<token_id> random_prompt(const load_shape& shape, std::uint32_t index,
                                    std::uint32_t vocabulary) {
  constexpr std::uint32_t first = 10;
  const std::uint32_t choices = vocabulary > first ? vocabulary - first : 1;
  std::vector<token_id> prompt(shape.input);
  for (std::uint32_t i = 0; i < shape.input; ++i) {
    const auto words =
        philox4x32({i, index, 0, 0}, {static_cast<std::uint32_t>(shape.seed),
                                      static_cast<std::uint32_t>(shape.seed >> 32U)});
    prompt[i] = static_cast<token_id>((vocabulary > first ? first : 0) + words[0] % choices);
  }
  return prompt;
}

result<load_shape> parse_shape(std::string_view text) {
  std::string_view rest = text;
  const bool limited = text.find('@') != std::string_view::npos;
  const auto input = take_number(rest, '/');
  const auto output = input ? take_number(rest, ':') : std::nullopt;
  const auto requests = output ? take_number(rest, limited ? '@' : '\0') : std::nullopt;
  const auto at_a_time = requests && limited ? take_number(rest, '\0') : requests;
  if (!at_a_time)
    return fail(errc::invalid_argument,
                fmt::format("'{}' is no load; write IN/OUT:REQUESTS or IN/OUT:REQUESTS@AT_A_TIME, "
                            "e.g. 512/128:768@64",
                            text));
  return load_shape{.input = *input,
                    .output = *output,
                    .requests = *requests,
                    .concurrency = std::min(*at_a_time, *requests)};
}

spread spread_of(std::vector<double> seconds) {
  if (seconds.empty())
    return {};
  std::sort(seconds.begin(), seconds.end());
  const auto size = seconds.size();
  const auto last = std::min(size - 1, size * 99 / 100);
  const double middle =
      size % 2 == 1 ? seconds[size / 2] : (seconds[size / 2 - 1] + seconds[size / 2]) / 2;
  return {middle * 1e3, seconds[last] * 1e3};
}

load_summary summarize(const load_shape& shape, const load_times& times) {
  load_summary made;
  std::vector<double> first, each, gaps, whole;
  for (const answer_times& one : times.answers) {
    made.output_tokens += one.tokens;
    first.push_back(one.first);
    whole.push_back(one.last);
    if (one.tokens > 1)
      each.push_back((one.last - one.first) / static_cast<double>(one.tokens - 1));
    gaps.insert(gaps.end(), one.gaps.begin(), one.gaps.end());
  }
  const auto answers = static_cast<double>(times.answers.size());
  const double seconds = std::max(times.seconds, 1e-9);
  made.seconds = times.seconds;
  made.output_tokens_per_s = static_cast<double>(made.output_tokens) / seconds;
  made.total_tokens_per_s = made.output_tokens_per_s + answers * shape.input / seconds;
  made.requests_per_s = answers / seconds;
  made.ttft = spread_of(std::move(first));
  made.tpot = spread_of(std::move(each));
  made.itl = spread_of(std::move(gaps));
  made.e2e = spread_of(std::move(whole));
  return made;
}

double metric_sum(std::string_view text, std::string_view name, std::string_view label) {
  double sum = 0;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const auto space = line.rfind(' ');
    const bool named = line.substr(0, name.size()) == name && line.size() > name.size() &&
                       (line[name.size()] == '{' || line[name.size()] == ' ');
    if (!named || line.find(label) == std::string_view::npos || space == std::string_view::npos)
      continue;
    double value = 0;
    std::from_chars(line.data() + space + 1, line.data() + line.size(), value);
    sum += value;
  }
  return sum;
}

} // namespace troupe::cli
