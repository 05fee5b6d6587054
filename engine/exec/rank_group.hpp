#pragma once

#include "engine/exec/collective.hpp"
#include "engine/exec/executor.hpp"

#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

/// Test support: the ranks of a replica, each called in a thread of its own, as one executor.
namespace troupe::engine::test {

/// Makes one rank from its place: options of the whole with rank, ranks and group set.
using rank_factory = std::function<std::unique_ptr<executor>(const executor_options& place)>;

class rank_group final : public executor {
public:
  rank_group(std::uint32_t ranks, const executor_options& options, const rank_factory& make)
      : group_{ranks == 1 ? decltype(group_){nullptr} : make_local_group(ranks)} {
    for (std::uint32_t rank = 0; rank < ranks; ++rank) {
      executor_options place = options;
      place.rank = rank;
      place.ranks = ranks;
      place.group = group_[rank];
      ranks_.push_back(make(place));
    }
  }

  [[nodiscard]] std::size_t size() const { return ranks_.size(); }
  [[nodiscard]] executor& rank(std::size_t index) { return *ranks_[index]; }
  [[nodiscard]] collective& end(std::size_t index) { return *group_[index]; }

  [[nodiscard]] result<void> load(const load_progress& progress) override {
    return on_all<void>([&](executor& one) { return one.load(progress); });
  }
  [[nodiscard]] const executor_description& describe() const override {
    return ranks_.front()->describe();
  }
  [[nodiscard]] result<void> prepare(const step_batch& step) override {
    return on_all<void>([&](executor& one) { return one.prepare(step); });
  }
  [[nodiscard]] result<void> launch(step_id step) override {
    return on_all<void>([&](executor& one) { return one.launch(step); });
  }
  [[nodiscard]] result<void> sample(step_id step) override {
    return on_all<void>([&](executor& one) { return one.sample(step); });
  }
  [[nodiscard]] result<step_result> collect(step_id step) override {
    return on_all<step_result>([&](executor& one) { return one.collect(step); });
  }
  void reset() override {
    for (const auto& one : ranks_)
      one->reset();
  }

private:
  /// The answer of rank 0, or the first error of any.
  template <class T, class Call>
  result<T> on_all(Call call) {
    if (ranks_.size() == 1)
      return call(*ranks_.front());
    std::vector<result<T>> answers(ranks_.size(), fail(errc::internal, "not called"));
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank)
      threads.emplace_back([&, rank] { answers[rank] = call(*ranks_[rank]); });
    for (std::thread& one : threads)
      one.join();
    for (const result<T>& one : answers)
      if (!one)
        return fail(one.error());
    return std::move(answers.front());
  }

  std::vector<std::shared_ptr<collective>> group_;
  std::vector<std::unique_ptr<executor>> ranks_;
};

} // namespace troupe::engine::test
