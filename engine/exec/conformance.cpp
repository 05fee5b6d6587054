#include "engine/exec/conformance.hpp"

#include "engine/exec/likelihood.hpp"
#include "engine/exec/step_driver.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

namespace troupe::engine::test {

namespace {

constexpr std::uint32_t block_size = 16;
constexpr std::uint32_t num_blocks = 96;
constexpr std::uint32_t max_seqs = 8;
constexpr std::uint32_t answer_tokens = 6;

/// One sequence and how it is to be computed.
struct part {
  request_id id{};
  std::vector<token_id> prompt;
  sampling_params sampling;
  std::vector<block_id> blocks;
  /// Positions that are in the cache already.
  std::uint32_t cached = 0;
  /// The most positions that a step computes of it.
  std::uint32_t chunk = 256;
  /// Steps of the others before its first.
  std::uint32_t delay = 0;
  std::uint32_t wanted = answer_tokens;

  std::vector<token_id> answer;
  std::vector<std::vector<float>> logits;
};

part make_part(std::uint64_t id, std::size_t prompt_tokens, float temperature,
               std::uint32_t first_block) {
  part one;
  one.id = request_id{id};
  one.prompt = prompt_of(prompt_tokens, 1000 + prompt_tokens);
  one.sampling = sampling_at(temperature, 7 * prompt_tokens);
  one.blocks = blocks_for(static_cast<std::uint32_t>(prompt_tokens) + 2 * answer_tokens, block_size,
                          first_block);
  return one;
}

class suite {
public:
  explicit suite(const conformance_case& subject)
      : subject_{&subject}, run_{subject.make(1)}, drive_{*run_} {}

  void bits() {
    for (const float temperature : {0.0F, 0.9F}) {
      std::vector<part> alone = four(temperature);
      for (part& one : alone)
        play({&one});
      batched(alone, temperature);
      chunked(alone, temperature);
      resumed(alone, temperature);
      shared(temperature);
      permuted(alone, temperature);
      ahead(alone, temperature);
      threaded(alone, temperature);
    }
  }

  /// What a row tells of its token is what the logits say, beside a row that does not ask.
  void likelihoods() {
    drive_.reset();
    for (unsigned i = 0; i < 4; ++i) {
      auto how = sampling_at(0.9F);
      how.logprobs = static_cast<std::int32_t>(i) - 1;
      drive_.add(request_id{i}, prompt_of(9, 3), how, blocks_for(9, block_size, 8 * i));
      drive_.row(request_id{i}, 0, 9, true);
    }
    const auto brought = drive_.run();
    REQUIRE((brought && brought->logprobs.size() == 3));
    for (std::size_t i = 0; i < 3; ++i) {
      const auto& [id, got] = brought->logprobs[i];
      CHECK((id == request_id{i + 1} && got.top.size() == i));
      const auto logits = subject_->logits(*run_, i + 1);
      if (logits.empty())
        continue;
      const auto token = brought->tokens[i + 1].token;
      const auto wanted = likelihood_of(logits, token, static_cast<std::int32_t>(i));
      CHECK((got.chosen.token == token && got.rank == wanted.rank));
      CHECK(got.chosen.logprob == Approx(wanted.chosen.logprob).margin(1e-5));
      CHECK((i == 0 || got.top.back().token == wanted.top.back().token));
    }
  }

  void errors() {
    refused("an unknown sequence", [](step_driver& d) { d.row(request_id{99}, 0, 1, false); });
    refused("a gap in positions", [](step_driver& d) {
      d.row(request_id{1}, 0, 8, false);
      REQUIRE(d.run());
      d.row(request_id{1}, 12, 4, false);
    });
    refused("positions beyond the tokens",
            [](step_driver& d) { d.row(request_id{1}, 0, 41, true); });
    refused("a block outside the cache", [](step_driver& d) {
      d.add(request_id{2}, {1, 2, 3}, sampling_at(), {block_id{num_blocks}});
      d.row(request_id{2}, 0, 3, true);
    });
    refused("too few blocks", [](step_driver& d) {
      d.add(request_id{2}, prompt_of(17, 1), sampling_at(), {block_id{50}});
      d.row(request_id{2}, 0, 17, true);
    });
    for (const token_id token : {token_id{-1}, token_id{1 << 30}})
      refused("a token outside the vocabulary", [&](step_driver& d) {
        d.add(request_id{2}, {1, token}, sampling_at(), {block_id{50}});
        d.row(request_id{2}, 0, 2, true);
      });
    refused("more rows than sequences may run", [](step_driver& d) {
      for (std::uint32_t i = 0; i <= max_seqs; ++i) {
        d.add(request_id{10 + i}, {1, 2}, sampling_at(), {block_id{20 + i}});
        d.row(request_id{10 + i}, 0, 2, true);
      }
    });
    refused("more tokens than a step may have", [](step_driver& d) {
      for (std::uint32_t i = 0; i < 2; ++i) {
        d.add(request_id{10 + i}, prompt_of(200, i), sampling_at(),
              blocks_for(200, block_size, 20 + 20 * i));
        d.row(request_id{10 + i}, 0, 200, true);
      }
    });
    refused("a sequence that is known already", [](step_driver& d) {
      d.add(request_id{1}, {1, 2}, sampling_at(), {block_id{50}});
    });
    numbers();
  }

private:
  static std::vector<part> four(float temperature) {
    std::vector<part> parts;
    parts.push_back(make_part(1, 1, temperature, 0));
    parts.push_back(make_part(2, 16, temperature, 2));
    parts.push_back(make_part(3, 40, temperature, 6));
    parts.push_back(make_part(4, 75, temperature, 16));
    return parts;
  }

  /// Computes the parts together, each by its own plan, and forgets them.
  void play(const std::vector<part*>& parts) {
    std::vector<std::uint32_t> next(parts.size());
    std::vector<bool> added(parts.size(), false);
    for (std::uint32_t step = 0; step < 400; ++step) {
      std::vector<part*> sampling;
      for (std::size_t i = 0; i < parts.size(); ++i)
        if (step >= parts[i]->delay && parts[i]->answer.size() < parts[i]->wanted)
          plan(*parts[i], next[i], added, i, sampling);
      const auto brought = drive_.run();
      CAPTURE(brought ? "" : brought.error().note);
      REQUIRE(brought);
      REQUIRE(brought->failed.empty());
      REQUIRE(brought->tokens.size() == sampling.size());
      for (std::size_t i = 0; i < sampling.size(); ++i) {
        REQUIRE(brought->tokens[i].id == sampling[i]->id);
        sampling[i]->answer.push_back(brought->tokens[i].token);
        const auto logits = subject_->logits(*run_, i);
        sampling[i]->logits.emplace_back(logits.begin(), logits.end());
      }
      if (std::all_of(parts.begin(), parts.end(),
                      [](const part* p) { return p->answer.size() == p->wanted; }))
        break;
    }
    for (const part* one : parts)
      drive_.remove(one->id);
    REQUIRE(drive_.run());
  }

  void plan(part& one, std::uint32_t& next, std::vector<bool>& added, std::size_t index,
            std::vector<part*>& sampling) {
    if (!added[index]) {
      drive_.add(one.id, one.prompt, one.sampling, one.blocks);
      next = one.cached;
      added[index] = true;
    }
    const auto known = static_cast<std::uint32_t>(one.prompt.size() + one.answer.size());
    const std::uint32_t count = std::min(one.chunk, known - next);
    const bool samples = next + count == known;
    drive_.row(one.id, next, count, samples);
    next += count;
    if (samples)
      sampling.push_back(&one);
  }

  static void same(const part& got, const part& wanted) {
    REQUIRE(got.answer.size() <= wanted.answer.size());
    for (std::size_t i = 0; i < got.answer.size(); ++i) {
      CAPTURE(i, value(got.id));
      REQUIRE(got.answer[i] == wanted.answer[i]);
      REQUIRE(got.logits[i] == wanted.logits[i]);
    }
  }

  void batched(const std::vector<part>& alone, float temperature) {
    INFO("batched");
    std::vector<part> parts = four(temperature);
    play({&parts[0], &parts[1], &parts[2], &parts[3]});
    for (std::size_t i = 0; i < 4; ++i)
      same(parts[i], alone[i]);
    INFO("in another order, prefill beside decode");
    parts = four(temperature);
    parts[0].delay = 2;
    parts[3].chunk = 32;
    parts[2].delay = 1;
    play({&parts[3], &parts[1], &parts[0], &parts[2]});
    for (std::size_t i = 0; i < 4; ++i)
      same(parts[i], alone[i]);
  }

  void chunked(const std::vector<part>& alone, float temperature) {
    for (std::uint32_t split = 1; split < 40; ++split) {
      CAPTURE(split);
      part one = four(temperature)[2];
      one.chunk = split;
      one.wanted = 2;
      play({&one});
      same(one, alone[2]);
    }
  }

  void resumed(const std::vector<part>& alone, float temperature) {
    for (const bool by_reset : {false, true}) {
      for (std::uint32_t done = 1; done < answer_tokens; done += 2) {
        CAPTURE(done, by_reset);
        part first = four(temperature)[2];
        first.wanted = done;
        play({&first});
        same(first, alone[2]);
        if (by_reset)
          drive_.reset();
        part again = four(temperature)[2];
        again.prompt.insert(again.prompt.end(), first.answer.begin(), first.answer.end());
        again.blocks = blocks_for(75, block_size, 40);
        again.wanted = answer_tokens - done;
        play({&again});
        for (std::size_t i = 0; i < again.answer.size(); ++i)
          REQUIRE(again.answer[i] == alone[2].answer[done + i]);
      }
    }
  }

  /// Two sequences with the same first two blocks: one step after the other, and in one step; and
  /// row by row, where the step that fills the second block has the row behind it.
  void shared(float temperature) {
    const auto variant = [&](std::uint64_t id, std::uint32_t own_blocks) {
      part one = make_part(id, 50, temperature, own_blocks);
      one.prompt[40 + id] = 63 - one.prompt[40 + id];
      return one;
    };
    part reference = variant(2, 30);
    play({&reference});
    for (const auto& [delay, chunk] :
         {std::pair{0U, 256U}, {1U, 256U}, {3U, 256U}, {2 * block_size - 1, 1U}}) {
      CAPTURE(delay, chunk);
      part owner = variant(1, 0);
      part guest = variant(2, 30);
      owner.chunk = guest.chunk = chunk;
      std::copy_n(owner.blocks.begin(), 2, guest.blocks.begin());
      guest.cached = 2 * block_size;
      guest.delay = delay;
      play({&owner, &guest});
      same(guest, reference);
    }
  }

  void permuted(const std::vector<part>& alone, float temperature) {
    std::vector<part> parts = four(temperature);
    for (std::uint32_t i = 0; i < 4; ++i) {
      std::vector<block_id>& blocks = parts[i].blocks;
      for (std::uint32_t b = 0; b < blocks.size(); ++b)
        blocks[b] = block_id{num_blocks - 1 - (11 * b + i) % num_blocks};
    }
    play({&parts[0], &parts[1], &parts[2], &parts[3]});
    for (std::size_t i = 0; i < 4; ++i)
      same(parts[i], alone[i]);
  }

  /// Step N+1 is prepared and launched before step N is collected; its token is a placeholder.
  void ahead(const std::vector<part>& alone, float temperature) {
    INFO("a step ahead");
    const part one = four(temperature)[2];
    drive_.add(one.id, one.prompt, one.sampling, one.blocks);
    std::vector<token_id> answer;
    std::uint32_t position = 0;
    std::uint32_t count = 40;
    step_id before{};
    for (std::uint32_t i = 0; i < answer_tokens; ++i) {
      drive_.row(one.id, position, count, true);
      const step_batch step = drive_.take();
      REQUIRE(run_->prepare(step));
      REQUIRE(run_->launch(step.id));
      REQUIRE(run_->sample(step.id));
      if (before != step_id{})
        answer.push_back(run_->collect(before)->tokens.at(0).token);
      before = step.id;
      position += count;
      count = 1;
    }
    answer.push_back(run_->collect(before)->tokens.at(0).token);
    REQUIRE(answer == alone[2].answer);
    INFO("removed and added again in one step");
    drive_.remove(one.id);
    drive_.add(one.id, one.prompt, one.sampling, one.blocks);
    drive_.row(one.id, 0, 40, true);
    CHECK(drive_.run_one() == alone[2].answer[0]);
    drive_.remove(one.id);
    REQUIRE(drive_.run());
  }

  void threaded(const std::vector<part>& alone, float temperature) {
    for (const unsigned threads : {2U, 3U, 4U}) {
      CAPTURE(threads);
      const auto more = subject_->make(threads);
      REQUIRE(more);
      CHECK(more->describe().numerics == run_->describe().numerics);
      suite other{*subject_, *more};
      std::vector<part> parts = four(temperature);
      other.play({&parts[0], &parts[1], &parts[2], &parts[3]});
      for (std::size_t i = 0; i < 4; ++i)
        same(parts[i], alone[i]);
    }
  }

  /// Expects the step that `build` adds to a known sequence of 40 tokens to be refused, and the
  /// executor to work as ever after it.
  void refused(const char* what, const std::function<void(step_driver&)>& build) {
    INFO(what);
    drive_.reset();
    drive_.add(request_id{1}, prompt_of(40, 1), sampling_at(), blocks_for(48, block_size));
    REQUIRE(drive_.run());
    build(drive_);
    const auto brought = drive_.run();
    REQUIRE(!brought);
    CHECK(brought.error().code == errc::invalid_argument);
    CHECK(brought.error().note.find("step") != std::string::npos);
    drive_.reset();
    std::vector<part> parts = four(0);
    play({&parts[1], &parts[2]});
  }

  void numbers() {
    INFO("steps come in the order of their numbers, phases in theirs");
    step_batch step;
    for (const std::uint64_t late : {10U, 9U}) {
      drive_.reset();
      step.id = step_id{10};
      REQUIRE(run_->prepare(step));
      REQUIRE(run_->launch(step.id));
      REQUIRE(run_->sample(step.id));
      REQUIRE(run_->collect(step.id));
      step.id = step_id{late};
      CHECK(!run_->prepare(step));
    }
    drive_.reset();
    CHECK(!run_->launch(step_id{1}));
    CHECK(!run_->sample(step_id{1}));
    CHECK(!run_->collect(step_id{1}));
    drive_.reset();
  }

  suite(const conformance_case& subject, executor& run)
      : subject_{&subject}, run_{&run, [](executor*) {}}, drive_{run} {}

  const conformance_case* subject_;
  std::shared_ptr<executor> run_;
  step_driver drive_;
};

} // namespace

executor_options conformance_options(unsigned threads) {
  executor_options options;
  options.block_size = block_size;
  options.num_blocks = num_blocks;
  options.swap_bytes = 1U << 20U;
  options.max_num_seqs = max_seqs;
  options.max_num_batched_tokens = 256;
  options.max_model_len = 256;
  options.threads = threads;
  return options;
}

void check_conformance(const conformance_case& subject) {
  INFO(subject.name);
  suite checks{subject};
  checks.bits();
  checks.likelihoods();
  checks.errors();
}

} // namespace troupe::engine::test
