#include "actors/cli/commands.hpp"
#include "actors/cli/compare_ask.hpp"
#include "actors/cli/compare_report.hpp"
#include "actors/cli/compare_side.hpp"
#include "actors/cli/generation.hpp"
#include "actors/cli/output.hpp"
#include "actors/cli/progress.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>

namespace troupe::cli {

namespace {

using steady = std::chrono::steady_clock;
using prompt_list = std::vector<nlohmann::json>;

/// Differences of which the tokens are asked for once more.
constexpr std::size_t looked_into = 8;

/// One of two clusters that are asked in turns.
struct contender {
  std::unique_ptr<compare_side> process;
  compare_model model;
  std::optional<http_client> client;
  side_tally tally;

  [[nodiscard]] client_options where(const compare_options& o) const {
    return {.url = process->url(), .api_key = o.api_key};
  }

  /// An error of a connection in the words of the one who knows why.
  [[nodiscard]] error explained(const error& e) const {
    // The end of a process is known a moment after that of its connections.
    constexpr std::chrono::milliseconds moment{300};
    std::this_thread::sleep_for(moment);
    const auto why = process->epitaph();
    return why.empty() ? error{e.code, "the " + process->name() + " side: " + e.note}
                       : error{errc::peer_down, why};
  }
};

/// Says how far a comparison is.
class stepper {
public:
  explicit stepper(std::size_t steps) : steps_{steps} {}
  void step(std::string_view what) {
    ++done_;
    line_.show(static_cast<double>(done_) / static_cast<double>(steps_), what);
  }
  void still(std::string_view what) {
    line_.show(static_cast<double>(done_) / static_cast<double>(steps_), what);
  }

private:
  progress_line line_;
  std::size_t steps_;
  std::size_t done_ = 0;
};

class side_by_side {
public:
  side_by_side(const compare_options& o, stepper& steps, std::string what)
      : options_{o}, steps_{steps}, what_{std::move(what)} {}

  /// Both are fresh processes, so that neither has seen a prompt before.
  result<void> start(const compare_side::recipe& base, const std::string& base_model,
                     const compare_side::recipe& other, const std::string& other_model) {
    for (auto [side, how, model] :
         {std::tuple{&base_, &base, &base_model}, std::tuple{&other_, &other, &other_model}}) {
      auto process = compare_side::start(
          *how, [&, name = how->name] { steps_.still(what_ + ": loading " + name); });
      if (!process)
        return fail(process.error());
      side->process = std::move(*process);
      auto client = open_client(side->where(options_));
      if (!client)
        return fail(client.error());
      side->client.emplace(std::move(*client));
      auto found = find_compare_model(*side->client, *model, options_.api);
      if (!found)
        return fail(side->explained(found.error()));
      side->model = std::move(*found);
    }
    return agree_on_protocol();
  }

  result<comparison> run() {
    if (auto warm = warm_up(); !warm)
      return fail(warm.error());
    for (std::uint32_t round = 0; round < options_.rounds; ++round) {
      const auto prompts = compare_prompts(options_, round);
      if (!prompts)
        return fail(prompts.error());
      if (auto done = one_by_one(round, *prompts); !done)
        return fail(done.error());
      if (auto done = all_together(round); !done)
        return fail(done.error());
    }
    made_.base = base_.tally.figures();
    made_.other = other_.tally.figures();
    if (made_.answers == made_.base.failed)
      return fail(errc::invalid_argument, "the base refuses every prompt: " + made_.last_refusal);
    return static_cast<comparison>(made_);
  }

  [[nodiscard]] const contender& base() const { return base_; }
  [[nodiscard]] const contender& other() const { return other_; }

private:
  /// A comparison with what is needed on the way.
  struct running : comparison {
    std::string last_refusal;
  };

  /// OpenAI's API where both speak it, else generate for both.
  result<void> agree_on_protocol() {
    if (base_.model.api == other_.model.api)
      return {};
    for (auto* side : {&base_, &other_}) {
      auto found = find_compare_model(*side->client, side->model.name, "generate");
      if (!found)
        return fail(side->explained(found.error()));
      side->model = std::move(*found);
    }
    return {};
  }

  result<compare_answer> ask(contender& side, const nlohmann::json& prompt) {
    auto answer = ask_prompt(*side.client, side.model, prompt, options_);
    if (!answer && answer.error().code != errc::unsupported)
      return fail(side.explained(answer.error()));
    return answer;
  }

  /// First answers open connections and touch memory; they do not count.
  result<void> warm_up() {
    // No round of a file's prompts is another one; made prompts of this number are none's.
    const auto prompts = compare_prompts(options_, options_.rounds);
    if (!prompts)
      return fail(prompts.error());
    constexpr std::size_t enough = 4;
    for (std::size_t i = 0; i < std::min(enough, prompts->size()); ++i)
      for (auto* side : {&base_, &other_})
        if (auto answer = ask(*side, (*prompts)[i]); !answer)
          return fail(answer.error());
    return {};
  }

  result<void> one_by_one(std::uint32_t round, const prompt_list& prompts) {
    for (std::uint32_t i = 0; i < prompts.size(); ++i) {
      // Whoever comes first changes, so that what one leaves in the caches favours nobody.
      const bool swapped = (i + round) % 2 == 1;
      auto first = ask(swapped ? other_ : base_, prompts[i]);
      auto second = first ? ask(swapped ? base_ : other_, prompts[i]) : first;
      if (!second)
        return fail(second.error());
      const auto& base = swapped ? *second : *first;
      const auto& other = swapped ? *first : *second;
      base_.tally.add(base);
      other_.tally.add(other);
      note(round, i, prompts[i], base, other);
      steps_.step(fmt::format("{}: round {} of {}", what_, round + 1, options_.rounds));
    }
    return {};
  }

  void note(std::uint32_t round, std::uint32_t index, const nlohmann::json& prompt,
            const compare_answer& base, const compare_answer& other) {
    ++made_.answers;
    if (!base.refusal.empty())
      made_.last_refusal = base.refusal;
    if (base.same(other)) {
      ++made_.equal;
      return;
    }
    auto found = difference_of(base, other);
    found.round = round + 1;
    found.prompt = index + 1;
    if (made_.differences.size() < looked_into) {
      const auto ours = tokens_of_answer(*base_.client, base_.model, prompt, options_);
      const auto theirs = tokens_of_answer(*other_.client, other_.model, prompt, options_);
      if (!ours.empty() && !theirs.empty())
        found.token = alike(ours, theirs);
    }
    made_.differences.push_back(std::move(found));
  }

  /// Prompts of their own: what was asked one by one lies in the prefix cache.
  result<void> all_together(std::uint32_t round) {
    const auto prompts = compare_prompts(options_, options_.rounds + 1 + round);
    if (!prompts)
      return fail(prompts.error());
    const bool swapped = round % 2 == 1;
    for (auto* side : {swapped ? &other_ : &base_, swapped ? &base_ : &other_}) {
      if (auto done = load(*side, *prompts); !done)
        return done;
      steps_.step(fmt::format("{}: throughput, round {}", what_, round + 1));
    }
    return {};
  }

  result<void> load(contender& side, const prompt_list& prompts) {
    std::atomic<std::size_t> next{0};
    std::atomic<std::uint64_t> tokens{0};
    std::atomic<std::uint64_t> answered{0};
    std::mutex mutex;
    std::optional<error> problem;
    const auto work = [&] {
      auto client = open_client(side.where(options_));
      for (auto i = next++; client && i < prompts.size(); i = next++) {
        const auto answer = ask_prompt(*client, side.model, prompts[i], options_);
        if (answer) {
          tokens += answer->tokens;
          answered += answer->refusal.empty() ? 1 : 0;
          continue;
        }
        next = prompts.size();
        const std::lock_guard lock{mutex};
        problem = answer.error();
      }
    };
    const auto begin = steady::now();
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < std::min<std::size_t>(options_.concurrency, prompts.size()); ++t)
      threads.emplace_back(work);
    for (auto& t : threads)
      t.join();
    const std::chrono::duration<double> took = steady::now() - begin;
    if (problem)
      return fail(side.explained(*problem));
    side.tally.add_run(took.count(), answered, tokens);
    return {};
  }

  const compare_options& options_;
  stepper& steps_;
  std::string what_;
  contender base_;
  contender other_;
  running made_;
};

compare_side::recipe base_of(const compare_options& o) {
  compare_side::recipe made{.name = "base", .config = o.config, .executor = o.executor};
  made.config.file = o.against;
  if (!o.against_backends.empty())
    made.config.backend_directory = o.against_backends;
  return made;
}

/// @return the exit status
result<int> compare(const compare_options& o) {
  const auto first = compare_prompts(o, 0);
  if (!first)
    return fail(first.error());
  constexpr std::size_t both = 2;
  stepper steps{both * o.rounds * (first->size() + both)};
  const auto base = base_of(o);
  const compare_side::recipe custom{.name = "custom", .config = o.config, .executor = o.executor};
  std::optional<comparison> noise;
  {
    side_by_side alike{o, steps, "A/A"};
    auto again = base;
    again.name = "base's second";
    if (auto started = alike.start(base, o.against_model, again, o.against_model); !started)
      return fail(started.error());
    auto ran = alike.run();
    if (!ran)
      return fail(ran.error());
    noise = std::move(*ran);
  }
  side_by_side pair{o, steps, "base and custom"};
  if (auto started = pair.start(base, o.against_model, custom, o.model); !started)
    return fail(started.error());
  const auto seen = pair.run();
  if (!seen)
    return fail(seen.error());
  const report_head head{.base = o.against.string(),
                         .base_model = pair.base().model.name,
                         .other = o.config.file.string(),
                         .other_model = pair.other().model.name,
                         .api =
                             pair.base().model.api == compare_api::openai ? "openai" : "generate",
                         .first_prompt = first->front()};
  const auto verdicts = judge(o.limits, *noise, *seen);
  const auto text = o.json ? report_json(head, o, *noise, *seen, verdicts)
                           : report_text(head, o, *noise, *seen, verdicts);
  if (auto written = write_out(stdout, text); !written)
    return fail(written.error());
  return all_kept(verdicts) ? good : limits_broken;
}

} // namespace

int run_compare(const compare_options& o) {
  const auto done = compare(o);
  if (done)
    return *done;
  std::fprintf(stderr, "troupe bench compare: %s\n",
               done.error().note.empty() ? to_string(done.error()).c_str()
                                         : done.error().note.c_str());
  return failed;
}

} // namespace troupe::cli
