#pragma once

#include "actors/cli/compare_ask.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace troupe::cli {

/// Of a list of figures; 0 where there is none.
struct quantiles {
  double p50 = 0;
  double p95 = 0;
};
[[nodiscard]] quantiles quantiles_of(std::vector<double> figures);

/// One side of a comparison. Times are in milliseconds.
struct side_figures {
  quantiles first_token;
  quantiles per_token;
  quantiles whole;
  double requests_per_s = 0;
  /// 0 when the model does not count its tokens.
  double tokens_per_s = 0;
  std::uint64_t failed = 0;
};

/// Two answers to one prompt that are not alike.
struct difference {
  /// Both from 1.
  std::uint32_t round = 0;
  std::uint32_t prompt = 0;
  std::string base;
  std::string other;
  /// Bytes that are alike from the beginning, up to a whole character.
  std::size_t character = 0;
  /// Tokens that are alike, where the models told their tokens.
  std::optional<std::size_t> token;
};

/// What two clusters said to the same prompts.
struct comparison {
  side_figures base;
  side_figures other;
  std::uint64_t answers = 0;
  std::uint64_t equal = 0;
  std::vector<difference> differences;
};

/// Collects what came of one side's prompts and makes figures of it.
class side_tally {
public:
  void add(const compare_answer& answer);
  /// A run of all prompts at a time.
  void add_run(double seconds, std::uint64_t requests, std::uint64_t tokens);
  [[nodiscard]] side_figures figures() const;

private:
  std::vector<double> first_;
  std::vector<double> each_;
  std::vector<double> whole_;
  std::vector<double> requests_per_s_;
  std::vector<double> tokens_per_s_;
  std::uint64_t failed_ = 0;
};

/// Where two texts part; both in full when one is a refusal.
[[nodiscard]] difference difference_of(const compare_answer& base, const compare_answer& other);

/// The number of tokens that are alike from the beginning.
[[nodiscard]] std::size_t alike(const std::vector<std::string>& a,
                                const std::vector<std::string>& b);

/// A limit, what was seen, and what was seen of the base against itself.
struct verdict {
  std::string name;
  double limit = 0;
  double seen = 0;
  double noise = 0;
  bool kept = false;
};

/// One for each limit and figure that it bounds. An answer that failed on the compared side alone
/// breaks limits too.
[[nodiscard]] std::vector<verdict> judge(const compare_limits& limits, const comparison& noise,
                                         const comparison& seen);
[[nodiscard]] bool all_kept(const std::vector<verdict>& all);

/// What a report says beside its figures.
struct report_head {
  std::string base;
  std::string base_model;
  std::string other;
  std::string other_model;
  std::string api;
  nlohmann::json first_prompt;
};

[[nodiscard]] std::string report_text(const report_head& head, const compare_options& o,
                                      const comparison& noise, const comparison& seen,
                                      const std::vector<verdict>& verdicts);
/// One JSON object.
[[nodiscard]] std::string report_json(const report_head& head, const compare_options& o,
                                      const comparison& noise, const comparison& seen,
                                      const std::vector<verdict>& verdicts);

} // namespace troupe::cli
