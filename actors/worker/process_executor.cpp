#include "actors/worker/process_executor.hpp"

#include "actors/process/hosted.hpp"
#include "actors/worker/executor_frames.hpp"
#include "troupe/base/log.hpp"

#include <fmt/core.h>
#include <poll.h>

#include <map>
#include <span>
#include <utility>

namespace troupe::actors {

namespace {

using namespace std::chrono_literals;

/// How often the group of a rank is looked at while an answer is awaited.
constexpr auto look_at_group = 20ms;
/// What a GPU's memory may take to be given back.
constexpr auto end_limit = 20s;

/// The way to the process, and what it has said. One thread at a time.
class executor_process {
public:
  executor_process(std::string kind, const engine::executor_options& options, hosted_process hosted)
      : kind_{std::move(kind)}, group_{options.group}, tenure_{options.tenure},
        child_{std::move(hosted.child)}, socket_{std::make_unique<frame_socket>(hosted.socket)} {}
  ~executor_process();
  executor_process(const executor_process&) = delete;
  executor_process& operator=(const executor_process&) = delete;

  /// Gives an order and waits for its answer.
  template <class... Ts>
  [[nodiscard]] result<void> call(const executor_frame& order, Ts&... answer);
  [[nodiscard]] result<void> load(const engine::load_progress& progress,
                                  engine::executor_description& description);
  [[nodiscard]] result<void> sample(step_id step);
  [[nodiscard]] bool finished(step_id step);
  [[nodiscard]] result<engine::step_result> collect(step_id step);
  void reset();
  /// Also finds a process that ended while nothing was asked of it.
  [[nodiscard]] bool spoiled();

private:
  void receive(std::chrono::milliseconds limit);
  void take(executor_frame frame);
  void take_step(const executor_frame& frame);
  void exchange(const executor_frame& frame);
  void tell_of_group();
  void bury(std::string_view fault = {});

  const std::string kind_;
  const std::shared_ptr<engine::collective> group_;
  const std::shared_ptr<const void> tenure_;
  child_process child_;
  std::unique_ptr<frame_socket> socket_;
  const engine::load_progress* progress_ = nullptr;
  /// To the order that was given last.
  std::optional<executor_frame> answer_;
  /// Those in work, with what they brought once they are done.
  std::map<step_id, std::optional<result<engine::step_result>>> steps_;
  bool group_told_ = false;
  bool spoiled_ = false;
  /// Why there is no process any more.
  std::optional<error> dead_;
};

executor_process::~executor_process() {
  if (dead_)
    return;
  // The end of the connection is the end of the child.
  socket_.reset();
  static_cast<void>(child_.has_ended_within(end_limit));
  child_.kill_group();
  child_.reap();
}

template <class... Ts>
result<void> executor_process::call(const executor_frame& order, Ts&... answer) {
  if (dead_)
    return fail(*dead_);
  // A process that has ended is found by what it does not answer.
  static_cast<void>(socket_->send(order));
  while (!answer_ && !dead_)
    receive(look_at_group);
  if (dead_)
    return fail(*dead_);
  const auto came = std::exchange(answer_, std::nullopt);
  if (came->word == executor_word::answer)
    return read(*came, answer...);
  executor_failure failure;
  if (auto good = read(*came, failure); !good)
    return good;
  spoiled_ = spoiled_ || failure.spoiled;
  return fail(error_in(failure));
}

result<void> executor_process::load(const engine::load_progress& progress,
                                    engine::executor_description& description) {
  progress_ = &progress;
  auto loaded = call(frame_of(executor_word::load), description);
  progress_ = nullptr;
  return loaded;
}

result<void> executor_process::sample(step_id step) {
  auto begun = call(frame_of(executor_word::sample, step));
  if (begun)
    steps_.try_emplace(step);
  return begun;
}

bool executor_process::finished(step_id step) {
  receive(0ms);
  const auto known = steps_.find(step);
  return dead_ || known == steps_.end() || known->second;
}

result<engine::step_result> executor_process::collect(step_id step) {
  if (!steps_.contains(step))
    return fail(errc::invalid_argument,
                fmt::format("step {} was not sampled, or has been collected", value(step)));
  while (!finished(step))
    receive(look_at_group);
  auto brought = std::move(steps_.extract(step).mapped());
  if (!brought)
    return fail(*dead_);
  return std::move(*brought);
}

bool executor_process::spoiled() {
  receive(0ms);
  return spoiled_;
}

void executor_process::reset() {
  // One that cannot answer is spoiled, and the next call says why.
  static_cast<void>(call(frame_of(executor_word::reset)));
  steps_.clear();
}

/// Takes what has come, or comes within the limit.
void executor_process::receive(std::chrono::milliseconds limit) {
  if (dead_)
    return;
  tell_of_group();
  if (limit > 0ms) {
    std::vector<pollfd> all{{socket_->fd(), POLLIN, 0}};
    child_.add_to(all);
    ::poll(all.data(), all.size(), static_cast<int>(limit.count()));
    child_.take_output();
  }
  const bool there = socket_->fill();
  while (auto frame = socket_->next())
    take(std::move(*frame));
  if (!there)
    bury();
}

void executor_process::take(executor_frame frame) {
  executor_failure failure;
  double share = 0;
  std::string what;
  switch (frame.word) {
  case executor_word::answer:
  case executor_word::failure:
    answer_ = std::move(frame);
    return;
  case executor_word::progress:
    if (progress_ != nullptr && *progress_ && read(frame, share, what))
      (*progress_)(share, what);
    return;
  case executor_word::step_done:
    return take_step(frame);
  case executor_word::exchange:
    return exchange(frame);
  case executor_word::abort:
    if (group_ && read(frame, failure))
      group_->abort(error_in(failure));
    return;
  default:
    return bury("said what is no word of an executor");
  }
}

void executor_process::take_step(const executor_frame& frame) {
  engine::step_result brought;
  executor_failure failure;
  step_id id{};
  if (!read(frame, id, brought, failure))
    return bury("brought a step that cannot be read");
  spoiled_ = spoiled_ || failure.spoiled;
  if (failure.code == errc::none)
    steps_[id] = std::move(brought);
  else
    steps_[id] = fail(error_in(failure));
}

/// The child waits meanwhile.
void executor_process::exchange(const executor_frame& frame) {
  std::uint64_t tag = 0;
  std::chrono::milliseconds limit{};
  std::vector<char> mine;
  if (!group_ || !read(frame, tag, limit, mine))
    return bury("asked for an exchange that there is not");
  std::vector<char> all(mine.size() * group_->ranks());
  const auto done = group_->all_gather({.mine = std::as_bytes(std::span{mine}),
                                        .all = std::as_writable_bytes(std::span{all}),
                                        .tag = tag,
                                        .limit = limit});
  const auto how = done ? executor_failure{} : failure_of(done.error());
  static_cast<void>(socket_->send(frame_of(executor_word::exchanged, how, std::move(all))));
}

/// The child waits for its device, and for other ranks with it.
void executor_process::tell_of_group() {
  if (!group_ || group_told_)
    return;
  const auto why = group_->failure();
  if (!why)
    return;
  group_told_ = true;
  static_cast<void>(socket_->send(frame_of(executor_word::lost, failure_of(*why))));
}

/// Without a fault it has ended by itself.
void executor_process::bury(std::string_view fault) {
  if (dead_)
    return;
  spoiled_ = true;
  // One that has ended gives its status a moment later.
  if (fault.empty())
    static_cast<void>(child_.has_ended_within(1s));
  child_.kill_group();
  const auto status = describe_exit(child_.reap());
  const auto how = fault.empty() ? "ended with " + status : fmt::format("{}, and was ended", fault);
  dead_ = error{errc::peer_down, fmt::format("the process that has {} {}", kind_, how)};
  log_error("{}", dead_->note);
  if (group_)
    group_->abort_for_me(*dead_);
}

class process_executor final : public engine::executor {
public:
  explicit process_executor(std::unique_ptr<executor_process> process)
      : process_{std::move(process)} {}

  [[nodiscard]] result<engine::memory_forecast> foresee(std::uint64_t promised) override {
    engine::memory_forecast told;
    if (auto good = process_->call(frame_of(executor_word::foresee, promised), told); !good)
      return fail(good.error());
    return told;
  }
  [[nodiscard]] result<void> load(const engine::load_progress& progress) override {
    return process_->load(progress, description_);
  }
  [[nodiscard]] const engine::executor_description& describe() const override {
    return description_;
  }
  [[nodiscard]] result<void> prepare(const engine::step_batch& step) override {
    return process_->call(frame_of(executor_word::prepare, step));
  }
  [[nodiscard]] result<void> launch(step_id step) override {
    return process_->call(frame_of(executor_word::launch, step));
  }
  [[nodiscard]] result<void> sample(step_id step) override { return process_->sample(step); }
  [[nodiscard]] bool finished(step_id step) const override { return process_->finished(step); }
  [[nodiscard]] result<engine::step_result> collect(step_id step) override {
    return process_->collect(step);
  }
  void reset() override { process_->reset(); }
  [[nodiscard]] bool spoiled() const noexcept override { return process_->spoiled(); }

private:
  std::unique_ptr<executor_process> process_;
  engine::executor_description description_;
};

} // namespace

result<std::unique_ptr<engine::executor>>
make_process_executor(const std::string& kind, const engine::executor_options& options) {
  auto hosted = start_hosted(hosted_part::executor, [kind](child_stream, std::string_view line) {
    log_info("{}: {}", kind, line);
  });
  if (!hosted)
    return fail(hosted.error());
  auto process = std::make_unique<executor_process>(kind, options, std::move(*hosted));
  if (auto made = process->call(frame_of(executor_word::make, kind, order_of(options))); !made)
    return fail(made.error());
  return std::make_unique<process_executor>(std::move(process));
}

} // namespace troupe::actors
