// How many tokens of prompts a step may have: first tokens against the pace of the answers that
// run, and tokens a second against both.
#include "engine/sched/scheduler_impl.hpp"

#include <algorithm>

namespace troupe::engine {

namespace {

/// Where so many answers run, prompts are spread over a step for each so many of them.
constexpr std::uint64_t least_spread_decodes = 8;
constexpr std::uint64_t decodes_per_spread_step = 2;

/// Prompts of more full steps than this are a backlog, and that is computed at full speed.
constexpr std::uint64_t most_spread_prompts = 8;

/// Where so many answers run, half of those that may up to a bound, and prompts of more full steps
/// than this wait, steps have these rows, of both: every answer waits for the whole step, and
/// groups of answers that begin together would end together and come back as the next backlog.
/// Prompts that are longer than so many times what their answers may have would fall behind: they
/// have larger steps, beside fewer answers too. Prompts no longer than their answers may be are in
/// few steps, and where all of them have a place, the last to begin are the last to end: so these
/// steps are larger too.
constexpr std::uint64_t least_balanced_decodes = 48;
constexpr std::uint64_t most_least_balanced_decodes = 128;
constexpr std::uint64_t least_balanced_prompts = 4;
constexpr std::uint64_t balanced_rows = 1024;
constexpr std::uint64_t most_balanced_prompt = 4;
constexpr std::uint64_t long_balanced_rows = 4096;
constexpr std::uint64_t seldom_balanced_rows = 2048;

/// Rows that a step with prompts has at least: fewer take hardly less time, for weights are read
/// whole, and neither do less than so many for each answer, which wait for what they store; and
/// what its rows are a multiple of.
constexpr std::uint64_t least_spread_rows = 256;
constexpr std::uint64_t least_rows_of_decode = 2;
constexpr std::uint64_t spread_rows = 128;

/// The rows of a step in which these answers go on with one part of so many of what prompts lack.
std::uint64_t rows_of_spread(std::uint64_t decodes, std::uint64_t lacking, std::uint64_t parts) {
  const auto rows =
      std::max({decodes + lacking / parts, least_spread_rows, decodes * least_rows_of_decode});
  return (rows + spread_rows - 1) / spread_rows * spread_rows;
}

bool prompts_fall_behind(const prompt_demand& wanted) {
  return wanted.in > most_balanced_prompt * wanted.out;
}

/// The rows of a step of many answers and a backlog.
std::uint64_t rows_of_both(const prompt_demand& wanted) {
  if (prompts_fall_behind(wanted))
    return long_balanced_rows;
  return wanted.in > wanted.out || wanted.crowded ? balanced_rows : seldom_balanced_rows;
}

} // namespace

/// What the next step could have of prompts.
prompt_demand scheduler::impl::count_prompts() const {
  const std::uint64_t most = most_spread_prompts * config.max_num_batched_tokens;
  prompt_demand wanted;
  const auto count = [&](const sequence& seq, std::uint32_t tokens) {
    // What comes back from host memory goes on as an answer.
    if (tokens == 0 || (tokens == 1 && seq.saved.positions > 0))
      return;
    if (wanted.some == wanted.lacking &&
        (wanted.some == 0 || wanted.some + tokens <= config.prompt_step_tokens))
      wanted.some += tokens;
    wanted.lacking += tokens;
    wanted.in += seq.prompt_tokens;
    wanted.out += seq.request.sampling.max_tokens;
    wanted.first_arrival = std::min(wanted.first_arrival, seq.arrival);
  };
  for (const auto* seq : running) {
    const auto tokens = tokens_wanted(*seq);
    if (tokens == 1)
      ++wanted.decodes;
    else
      count(*seq, tokens);
  }
  auto places = config.max_num_seqs - std::min<std::size_t>(running.size(), config.max_num_seqs);
  wanted.crowded = waiting.size() > places;
  for (const auto& [at, seq] : waiting) {
    if (places-- == 0 || wanted.lacking > most)
      break;
    count(*seq, tokens_wanted(*seq));
  }
  wanted.overflows = wanted.crowded || wanted.lacking > most;
  return wanted;
}

/// How many tokens of prompts the next step may have. Whoever has begun to read waits for the whole
/// step, so the more answers run, up to some, the finer prompts are cut: what is lacking is spread
/// over one step for each two of them, in steps of as many rows as devices are good at. Where few
/// run, prompts come one after another, some in a step: who came first need not wait for who came
/// last. Who was there while there was a backlog is not held back: there tokens a second count.
std::uint32_t scheduler::impl::prompt_budget() {
  const auto most = config.max_num_batched_tokens;
  if (!config.enable_chunked_prefill)
    return most;
  const prompt_demand wanted = count_prompts();
  const std::uint64_t decodes = wanted.decodes;
  const auto beside = [&](std::uint64_t rows) {
    return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(
        rows > decodes ? rows - decodes : 0, std::min(spread_rows, std::uint64_t{most}), most));
  };
  if (wanted.overflows)
    backlog_until = last_arrival;
  const bool backlog = wanted.first_arrival <= backlog_until;
  const auto half_of_all = std::clamp<std::uint64_t>(
      config.max_num_seqs / 2, least_balanced_decodes, most_least_balanced_decodes);
  const bool many = decodes >= (prompts_fall_behind(wanted) ? least_spread_decodes : half_of_all);
  if (many && wanted.lacking > least_balanced_prompts * most)
    balanced_until = last_arrival;
  if (many && (backlog || wanted.first_arrival <= balanced_until))
    return beside(rows_of_both(wanted));
  if (backlog)
    return most;
  const std::uint64_t parts =
      decodes < least_spread_decodes
          ? 0
          : std::min<std::uint64_t>(decodes / decodes_per_spread_step, config.spread_steps);
  if (parts < 2)
    return static_cast<std::uint32_t>(
        wanted.some == 0 ? most : std::min<std::uint64_t>(most, wanted.some));
  return beside(rows_of_spread(decodes, wanted.lacking, parts));
}

} // namespace troupe::engine
