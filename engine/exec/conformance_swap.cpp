// The part of the conformance suite about blocks that are kept in host memory.
#include "engine/exec/conformance.hpp"

#include "engine/exec/step_driver.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

namespace troupe::engine::test {

namespace {

constexpr std::uint32_t block_size = 16;
constexpr std::uint32_t answer_tokens = 8;

/// A sequence on its way, and what each step brought of it.
struct player {
  request_id id{};
  std::vector<token_id> tokens;
  sampling_params sampling;
  std::vector<block_id> blocks;
  std::uint32_t computed = 0;
  std::vector<std::vector<float>> logits = {};

  /// The blocks that hold what was computed; the last may be filled in part.
  [[nodiscard]] std::uint32_t filled() const { return (computed + block_size - 1) / block_size; }
};

std::vector<host_block> places(std::initializer_list<std::uint32_t> numbers) {
  std::vector<host_block> made;
  for (const std::uint32_t number : numbers)
    made.push_back(host_block{number});
  return made;
}

class swap_suite {
public:
  explicit swap_suite(const conformance_case& subject)
      : subject_{&subject}, run_{subject.make(2)}, drive_{*run_} {
    REQUIRE(run_->describe().num_host_blocks >= 16);
  }

  void bits() {
    for (const float temperature : {0.0F, 0.9F}) {
      temperature_ = temperature;
      overwritten();
      exchanged();
      reused();
      ahead();
    }
  }

  void errors() {
    const block_id beyond{run_->describe().num_blocks};
    const host_block no_place{run_->describe().num_host_blocks};
    const auto save = [](block_id block, host_block host) {
      return [=](step_driver& d) { d.save(block, host); };
    };
    const auto restore = [](block_id block, host_block host) {
      return [=](step_driver& d) { d.restore(block, host); };
    };
    const std::string range = "blocks and ";
    refused(range, {save(beyond, host_block{1})});
    refused(range, {save(block_id{0}, no_place)});
    refused(range, {restore(beyond, host_block{0})});
    refused(range, {restore(block_id{5}, no_place)});
    refused("saved to twice", {save(block_id{0}, host_block{3}), save(block_id{1}, host_block{3})});
    refused("restored from twice",
            {restore(block_id{5}, host_block{0}), restore(block_id{6}, host_block{0})});
    refused("block 5 is restored twice",
            {restore(block_id{5}, host_block{0}), restore(block_id{5}, host_block{1})});
    refused("saved to and restored from in one step",
            {save(block_id{2}, host_block{0}), restore(block_id{5}, host_block{0})});
    refused("nothing was saved there", {restore(block_id{5}, host_block{7})});
    INFO("what was restored is there no more");
    refused("nothing was saved there", {[](step_driver& d) {
              d.restore(block_id{5}, host_block{0});
              REQUIRE(d.run());
              d.restore(block_id{6}, host_block{0});
            }});
    INFO("nor is what was saved before a reset");
    refused("nothing was saved there", {[](step_driver& d) {
              d.reset();
              d.restore(block_id{6}, host_block{0});
            }});
  }

private:
  player make(std::uint64_t id, std::size_t prompt_tokens, std::uint32_t first_block) const {
    return {.id = request_id{id},
            .tokens = prompt_of(prompt_tokens, 1000 + prompt_tokens),
            .sampling = sampling_at(temperature_, prompt_tokens),
            .blocks = blocks_for(static_cast<std::uint32_t>(prompt_tokens) + answer_tokens,
                                 block_size, first_block)};
  }

  void add(const player& one) { drive_.add(one.id, one.tokens, one.sampling, one.blocks); }

  void row(player& one) {
    const auto known = static_cast<std::uint32_t>(one.tokens.size());
    drive_.row(one.id, one.computed, known - one.computed, true);
    one.computed = known;
  }

  void take(const step_result& brought, const std::vector<player*>& rows) {
    REQUIRE(brought.failed.empty());
    REQUIRE(brought.tokens.size() == rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i)
      rows[i]->tokens.push_back(brought.tokens[i].token);
  }

  /// Runs a step with a row for each.
  void step(const std::vector<player*>& rows) {
    for (player* const one : rows)
      row(*one);
    const auto brought = drive_.run();
    CAPTURE(brought ? "" : brought.error().note);
    REQUIRE(brought);
    take(*brought, rows);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto logits = subject_->logits(*run_, i);
      rows[i]->logits.emplace_back(logits.begin(), logits.end());
    }
  }

  void preempt(const player& one, const std::vector<host_block>& to) {
    drive_.remove(one.id);
    REQUIRE(to.size() == one.filled());
    for (std::size_t i = 0; i < to.size(); ++i)
      drive_.save(one.blocks[i], to[i]);
  }

  void resume(player& one, const std::vector<host_block>& from, std::vector<block_id> into) {
    one.blocks = std::move(into);
    add(one);
    for (std::size_t i = 0; i < from.size(); ++i)
      drive_.restore(one.blocks[i], from[i]);
  }

  /// Ends all at `tokens` new ones, and forgets them.
  void finish(const std::vector<player*>& all, std::size_t prompt_tokens) {
    while (all.front()->tokens.size() < prompt_tokens + answer_tokens)
      step(all);
    for (const player* one : all)
      drive_.remove(one->id);
    REQUIRE(drive_.run());
  }

  /// The same sequence without any interruption.
  player uninterrupted(std::size_t prompt_tokens) {
    player one = make(90, prompt_tokens, 80);
    add(one);
    finish({&one}, prompt_tokens);
    return one;
  }

  static void same(const player& got, const player& wanted) {
    const std::size_t tokens = std::min(got.tokens.size(), wanted.tokens.size());
    for (std::size_t i = 0; i < tokens; ++i) {
      CAPTURE(i, value(got.id));
      REQUIRE(got.tokens[i] == wanted.tokens[i]);
    }
    const std::size_t rows = std::min(got.logits.size(), wanted.logits.size());
    for (std::size_t i = 0; i < rows; ++i)
      REQUIRE(got.logits[i] == wanted.logits[i]);
  }

  /// Saved after a few tokens, its blocks written by another in that very step, restored into other
  /// blocks two steps later. 43 positions fill the last block in part, 48 fill it.
  void overwritten() {
    INFO("overwritten in the step that saves");
    for (const std::size_t prompt_tokens : {std::size_t{41}, std::size_t{46}}) {
      const player wanted = uninterrupted(prompt_tokens);
      const player wanted_other = uninterrupted(45);
      player one = make(1, prompt_tokens, 0);
      player other = make(2, 45, 0);
      add(one);
      for (int i = 0; i < 3; ++i)
        step({&one});
      const auto at = places({11, 2, 7});
      preempt(one, at);
      add(other);
      step({&other});
      step({&other});
      resume(one, at, blocks_for(64, block_size, 33, 3));
      step({&other, &one});
      finish({&one, &other}, prompt_tokens);
      same(one, wanted);
      same(other, wanted_other);
    }
  }

  /// One is saved and another restored in the same step, into the blocks that the first leaves.
  void exchanged() {
    INFO("saved and restored in one step");
    const player wanted = uninterrupted(20);
    const player wanted_other = uninterrupted(30);
    player one = make(1, 20, 0);
    player other = make(2, 30, 4);
    add(one);
    add(other);
    step({&one, &other});
    const auto first = places({0, 1});
    const auto second = places({5, 4});
    preempt(one, first);
    step({&other});
    preempt(other, second);
    resume(one, first, other.blocks);
    step({&one});
    preempt(one, first);
    resume(other, second, one.blocks);
    step({&other});
    resume(one, first, blocks_for(28, block_size, 20));
    step({&other, &one});
    finish({&one, &other}, 20);
    same(one, wanted);
    same(other, wanted_other);
  }

  /// A place takes another block in the step behind the one that restores it, and one that was
  /// never restored is saved over.
  void reused() {
    INFO("places that are used again");
    const player wanted = uninterrupted(17);
    const player wanted_other = uninterrupted(20);
    player one = make(1, 17, 0);
    player other = make(2, 20, 4);
    player given_up = make(3, 25, 8);
    add(one);
    add(other);
    add(given_up);
    step({&one, &other, &given_up});
    const auto at = places({3, 6});
    preempt(given_up, at);
    step({&one, &other});
    preempt(one, at);
    step({&other});
    resume(one, at, blocks_for(25, block_size, 12));
    step({&other, &one});
    preempt(other, at);
    step({&one});
    resume(other, at, blocks_for(28, block_size, 0));
    finish({&one, &other}, 17);
    same(one, wanted);
    same(other, wanted_other);
  }

  /// Step N+1 saves what step N writes, and step N+2 restores what N+1 saves, each launched before
  /// the one ahead of it is collected.
  void ahead() {
    INFO("a step ahead");
    const player wanted = uninterrupted(40);
    const player wanted_other = uninterrupted(37);
    player one = make(1, 40, 0);
    player other = make(2, 37, 0);
    const auto start = [&] {
      const step_batch made = drive_.take();
      REQUIRE(run_->prepare(made));
      REQUIRE(run_->launch(made.id));
      REQUIRE(run_->sample(made.id));
      return made.id;
    };
    const auto end = [&](step_id id, player& of) {
      const auto brought = run_->collect(id);
      REQUIRE(brought);
      take(*brought, {&of});
    };
    add(one);
    row(one);
    const step_id first = start();
    const auto at = places({9, 8, 10});
    preempt(one, at);
    add(other);
    row(other);
    const step_id second = start();
    end(first, one);
    drive_.remove(other.id);
    resume(one, at, one.blocks);
    row(one);
    const step_id third = start();
    end(second, other);
    end(third, one);
    finish({&one}, 40);
    REQUIRE(one.tokens == wanted.tokens);
    REQUIRE(other.tokens.back() == wanted_other.tokens[37]);
  }

  /// Expects a step to be refused, and what it says, where places 0 and 1 hold blocks.
  void refused(const std::string& what,
               const std::vector<std::function<void(step_driver&)>>& build) {
    CAPTURE(what);
    drive_.reset();
    drive_.save(block_id{0}, host_block{0});
    drive_.save(block_id{1}, host_block{1});
    REQUIRE(drive_.run());
    for (const auto& part : build)
      part(drive_);
    const auto brought = drive_.run();
    REQUIRE(!brought);
    CHECK(brought.error().code == errc::invalid_argument);
    CHECK(brought.error().note.find("step ") == 0);
    CHECK(brought.error().note.find(what) != std::string::npos);
    drive_.reset();
    uninterrupted(20);
  }

  const conformance_case* subject_;
  std::unique_ptr<executor> run_;
  step_driver drive_;
  float temperature_ = 0;
};

} // namespace

void check_swapping(const conformance_case& subject) {
  INFO(subject.name);
  swap_suite checks{subject};
  checks.bits();
  checks.errors();
}

} // namespace troupe::engine::test
