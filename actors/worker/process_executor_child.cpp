// The child's side of a process_executor: one executor in a process without actors. A reader in a
// thread of its own, the executor in the first; the end of the connection is the end of the
// process.
#include "actors/process/hosted.hpp"
#include "actors/worker/executor_frames.hpp"

#include <poll.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <thread>
#include <utility>

namespace troupe::actors {

namespace {

using engine::exchange_args;

/// A rank's end of a group whose other ends the parent reaches.
class far_collective final : public engine::collective {
public:
  far_collective(std::uint32_t rank, std::vector<std::string> names, frame_socket& parent)
      : rank_{rank}, names_{std::move(names)}, parent_{parent} {}

  [[nodiscard]] std::uint32_t rank() const noexcept override { return rank_; }
  [[nodiscard]] std::uint32_t ranks() const noexcept override {
    return static_cast<std::uint32_t>(names_.size());
  }
  [[nodiscard]] std::string name_of(std::uint32_t rank) const override { return names_[rank]; }

  [[nodiscard]] result<void> all_gather(const exchange_args& args) override {
    const auto* const mine = reinterpret_cast<const char*>(args.mine.data());
    std::unique_lock lock{mutex_};
    if (failure_)
      return fail(*failure_);
    exchanged_.reset();
    parent_.send(frame_of(executor_word::exchange, args.tag, args.limit,
                          std::vector<char>(mine, mine + args.mine.size())));
    changed_.wait(lock, [this] { return exchanged_.has_value(); });
    executor_failure how;
    std::vector<char> all;
    if (auto good = read(*exchanged_, how, all); !good)
      return good;
    if (how.code != errc::none)
      return fail(error_in(how));
    std::memcpy(args.all.data(), all.data(), std::min(all.size(), args.all.size()));
    return {};
  }

  void abort(error why) override {
    parent_.send(frame_of(executor_word::abort, failure_of(why)));
    lose(std::move(why));
  }
  [[nodiscard]] std::optional<error> failure() const override {
    const std::lock_guard lock{mutex_};
    return failure_;
  }

  void lose(error why) {
    const std::lock_guard lock{mutex_};
    if (!failure_)
      failure_ = std::move(why);
  }
  void take(executor_frame exchanged) {
    const std::lock_guard lock{mutex_};
    exchanged_ = std::move(exchanged);
    changed_.notify_one();
  }

private:
  const std::uint32_t rank_;
  const std::vector<std::string> names_;
  frame_socket& parent_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<executor_frame> exchanged_;
  std::optional<error> failure_;
};

class executor_host {
public:
  [[noreturn]] void run() {
    std::thread{[this] { read_all(); }}.detach();
    while (true) {
      hand_over();
      if (auto order = next_order())
        carry_out(*order);
      else
        std::this_thread::yield();
    }
  }

private:
  // The reader's thread.

  [[noreturn]] void read_all() {
    pollfd parent{hosted_socket, POLLIN, 0};
    bool there = true;
    while (there) {
      ::poll(&parent, 1, -1);
      there = parent_.fill();
      while (auto frame = parent_.next())
        take(std::move(*frame));
    }
    // Nobody needs destructors any more: what the process had goes back with it.
    std::fflush(nullptr);
    _exit(0);
  }

  void take(executor_frame frame) {
    const std::lock_guard lock{mutex_};
    if (frame.word == executor_word::exchanged && group_)
      group_->take(std::move(frame));
    else if (frame.word == executor_word::lost && group_)
      lose(frame);
    else
      orders_.push_back(std::move(frame));
    some_.notify_one();
  }

  void lose(const executor_frame& frame) const {
    if (executor_failure failure; group_ && read(frame, failure))
      group_->lose(error_in(failure));
  }

  // The executor's thread.

  /// Waits for one where no step is in work.
  std::optional<executor_frame> next_order() {
    std::unique_lock lock{mutex_};
    if (in_work_.empty())
      some_.wait(lock, [this] { return !orders_.empty(); });
    if (orders_.empty())
      return std::nullopt;
    auto order = std::move(orders_.front());
    orders_.pop_front();
    return order;
  }

  /// The steps that are done.
  void hand_over() {
    while (!in_work_.empty() && run_->finished(in_work_.front())) {
      const auto id = std::exchange(in_work_.front(), {});
      in_work_.pop_front();
      auto done = run_->collect(id);
      const auto how = done ? executor_failure{} : failure_of(done.error(), run_->spoiled());
      // After an error the others in work are lost.
      if (!done)
        in_work_.clear();
      parent_.send(frame_of(executor_word::step_done, id,
                            done ? std::move(*done) : engine::step_result{}, how));
    }
  }

  template <class... Ts>
  void answer(const result<void>& how, Ts... xs) {
    if (how)
      parent_.send(frame_of(executor_word::answer, std::move(xs)...));
    else
      parent_.send(
          frame_of(executor_word::failure, failure_of(how.error(), run_ && run_->spoiled())));
  }

  void carry_out(const executor_frame& order) {
    if (order.word == executor_word::make)
      return answer(make(order));
    // It came before the group was there.
    if (order.word == executor_word::lost)
      return lose(order);
    if (!run_)
      return answer(fail(errc::internal, "the process was given no executor to make"));
    switch (order.word) {
    case executor_word::foresee:
      return foresee(order);
    case executor_word::load:
      return load();
    case executor_word::prepare: {
      engine::step_batch step;
      return answer(read(order, step).and_then([&] { return run_->prepare(step); }));
    }
    case executor_word::launch:
    case executor_word::sample:
      return go_on(order);
    case executor_word::reset:
      run_->reset();
      in_work_.clear();
      return answer({});
    default:
      return answer(fail(errc::internal, "the process was given an order that is none"));
    }
  }

  [[nodiscard]] result<void> make(const executor_frame& frame) {
    std::string kind;
    executor_order order;
    if (auto good = read(frame, kind, order); !good)
      return good;
    auto options = options_in(order);
    if (!order.names.empty()) {
      const std::lock_guard lock{mutex_};
      group_ = std::make_shared<far_collective>(order.rank, order.names, parent_);
      options.group = group_;
    }
    auto made = engine::make_executor(kind, std::move(options));
    if (!made)
      return fail(made.error());
    run_ = std::move(*made);
    return {};
  }

  void foresee(const executor_frame& frame) {
    std::uint64_t promised = 0;
    const auto told = read(frame, promised).and_then([&] { return run_->foresee(promised); });
    if (!told)
      return answer(fail(told.error()));
    answer({}, *told);
  }

  void load() {
    const auto loaded = run_->load([this](double share, std::string_view what) {
      parent_.send(frame_of(executor_word::progress, share, std::string{what}));
    });
    if (!loaded)
      return answer(loaded);
    answer({}, run_->describe());
  }

  void go_on(const executor_frame& order) {
    step_id step{};
    auto done = read(order, step);
    if (done && order.word == executor_word::launch)
      done = run_->launch(step);
    else if (done)
      done = run_->sample(step);
    if (done && order.word == executor_word::sample)
      in_work_.push_back(step);
    answer(done);
  }

  frame_socket parent_{hosted_socket};
  std::unique_ptr<engine::executor> run_;
  std::deque<step_id> in_work_;
  std::shared_ptr<far_collective> group_;
  std::mutex mutex_;
  std::condition_variable some_;
  std::deque<executor_frame> orders_;
};

} // namespace

void serve_executor() {
  static executor_host all;
  all.run();
}

} // namespace troupe::actors
