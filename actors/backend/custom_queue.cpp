#include "actors/backend/custom_queue.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

namespace troupe::actors {

namespace {

using std::chrono::microseconds;

/// Deadlines beyond it are none.
constexpr std::uint64_t longest_us = std::uint64_t{1} << 50;

duration of_us(std::uint64_t us) { return microseconds{std::min(us, longest_us)}; }

/// The shorter of what the queue and, where it may, the request allows; zero is no limit.
duration patience(const config::queue_policy& policy, const inference_request& request) {
  const auto usual = of_us(policy.default_timeout_us);
  const duration own = std::min<duration>(request.timeout, of_us(longest_us));
  if (!policy.allow_timeout_override || own <= duration{0})
    return usual;
  return usual > duration{0} ? std::min(usual, own) : own;
}

/// First by priority; within one, those that are late stand behind.
bool goes_before(const custom_job& a, const custom_job& b) {
  return a.level != b.level ? a.level < b.level : a.late < b.late;
}

} // namespace

custom_queue::custom_queue(std::shared_ptr<const config::triton_model> model,
                           std::size_t most_waiting)
    : model_{std::move(model)}, most_waiting_{most_waiting} {
  if (!model_->dynamic_batching)
    return;
  const auto& how = *model_->dynamic_batching;
  most_ = std::max(*model_->max_batch_size, 1U);
  batches_ = most_ > 1;
  preferred_ = how.preferred_batch_sizes;
  if (preferred_.empty())
    preferred_ = {most_};
  delay_ = of_us(how.max_queue_delay_us);
  levels_ = how.priority_levels;
}

const config::queue_policy& custom_queue::policy_of(std::uint64_t level) const {
  static const config::queue_policy none;
  if (!model_->dynamic_batching)
    return none;
  const auto& own = model_->dynamic_batching->priority_queue_policy;
  const auto found = own.find(level);
  return found == own.end() ? model_->dynamic_batching->default_queue_policy : found->second;
}

result<void> custom_queue::push(inference_request_ptr request, response_sink_ptr sink,
                                time_point now) {
  custom_job job{.request = std::move(request), .sink = std::move(sink), .since = now};
  if (levels_ > 0) {
    const auto given = static_cast<std::uint64_t>(std::max(job.request->priority, 0));
    const auto usual = model_->dynamic_batching->default_priority_level;
    job.level = given == 0 || given > levels_ ? (usual == 0 ? levels_ : usual) : given;
  }
  const auto& policy = policy_of(job.level);
  if (const auto limit = patience(policy, *job.request); limit > duration{0}) {
    job.late_at = now + limit;
    job.reject_late = policy.reject;
  }
  errands after;
  {
    const std::lock_guard lock{mutex_};
    if (auto taken = queue_up(std::move(job), policy); !taken)
      return taken;
    arrange(now, after);
  }
  run(after);
  return {};
}

/// @pre the lock is held
result<void> custom_queue::queue_up(custom_job job, const config::queue_policy& policy) {
  if (closed_)
    return fail(*closed_);
  const auto of_level = std::count_if(waiting_.begin(), waiting_.end(), [&](const custom_job& j) {
    return levels_ > 0 && j.level == job.level;
  });
  const bool full_level = levels_ > 0 && policy.max_queue_size > 0 &&
                          std::cmp_greater_equal(of_level, policy.max_queue_size);
  if (full_level || waiting_.size() >= most_waiting_)
    return fail(errc::busy,
                fmt::format("{} requests wait for model '{}'; try again later",
                            full_level ? policy.max_queue_size : most_waiting_, model_->name));
  any_late_ = any_late_ || job.late_at != time_point::max();
  insert(std::move(job));
  return {};
}

void custom_queue::let_in(inference_request_ptr request, response_sink_ptr sink) {
  if (!sink->wanted())
    return;
  if (auto taken = push(std::move(request), sink, std::chrono::steady_clock::now()); !taken)
    end_with_error(*sink, std::move(taken.error()));
}

void custom_queue::insert(custom_job job) {
  const auto at = std::upper_bound(waiting_.begin(), waiting_.end(), job, goes_before);
  waiting_.insert(at, std::move(job));
}

/// @return those that are not served any more
custom_batch custom_queue::sort_out_late(time_point now) {
  custom_batch rejected;
  if (!any_late_)
    return rejected;
  custom_batch delayed;
  for (auto& job : waiting_)
    if (now >= job.late_at)
      (job.reject_late ? rejected : delayed).push_back(std::move(job));
  std::erase_if(waiting_, [](const custom_job& job) { return job.sink == nullptr; });
  for (auto& job : delayed) {
    job.late = true;
    job.late_at = time_point::max();
    insert(std::move(job));
  }
  any_late_ = std::any_of(waiting_.begin(), waiting_.end(),
                          [](const custom_job& j) { return j.late_at != time_point::max(); });
  return rejected;
}

/// Whether both can stand in one batch: the same inputs, with equal shapes behind the first
/// dimension where the model does not take ragged ones.
bool custom_queue::alike(const custom_job& a, const custom_job& b) const {
  return std::all_of(
      model_->inputs.begin(), model_->inputs.end(), [&](const config::tensor_config& input) {
        const auto* x = a.request->tensors->find(input.name);
        const auto* y = b.request->tensors->find(input.name);
        if (x == nullptr || y == nullptr)
          return x == y;
        return input.allow_ragged_batch || std::equal(std::next(x->shape.begin()), x->shape.end(),
                                                      std::next(y->shape.begin()), y->shape.end());
      });
}

/// How many of the first that wait go together, and when. A preferred size goes at once; what can
/// grow no more as well; the rest when the oldest has waited for as long as it may.
custom_queue::plan custom_queue::next(time_point now) const {
  if (!batches_)
    return {1, now};
  const auto largest = *std::max_element(preferred_.begin(), preferred_.end());
  const auto& first = waiting_.front();
  std::size_t count = 0;
  std::size_t best = 0;
  std::uint64_t size = 0;
  auto oldest = first.since;
  bool full = false;
  for (const auto& job : waiting_) {
    const auto with = size + job.request->batch_size;
    if (count > 0 && with > largest && best == 0)
      best = count;
    full = count > 0 && (with > most_ || !alike(first, job));
    if (full)
      break;
    size = with;
    ++count;
    oldest = std::min(oldest, job.since);
    if (std::find(preferred_.begin(), preferred_.end(), size) != preferred_.end())
      best = count;
  }
  const bool waited = delay_ > duration{0} && now - oldest >= delay_;
  if (best > 0 && !waited)
    return {best, now};
  if (full || waited || size >= largest)
    return {count, now};
  return {count, oldest + delay_};
}

std::size_t custom_queue::add_instance(std::function<void()> rouse) {
  const std::lock_guard lock{mutex_};
  instances_.push_back({.rouse = std::move(rouse)});
  return instances_.size() - 1;
}

void custom_queue::set_reminder(std::function<void()> remind) {
  const std::lock_guard lock{mutex_};
  remind_ = std::move(remind);
}

void custom_queue::enter(std::size_t instance) { set_there(instance, true); }

void custom_queue::leave(std::size_t instance) { set_there(instance, false); }

void custom_queue::set_there(std::size_t instance, bool there) {
  errands after;
  {
    const std::lock_guard lock{mutex_};
    instances_[instance].there = instances_[instance].idle = there;
    arrange(std::chrono::steady_clock::now(), after);
  }
  run(after);
}

/// Chooses idle instances for what is due.
/// @return when the queue is to be looked at again
std::optional<time_point> custom_queue::rouse_idle(time_point now, errands& after) {
  if (waiting_.empty())
    return std::nullopt;
  auto again = time_point::max();
  if (const auto due = next(now).at; due > now) {
    again = due;
  } else {
    auto wanted = waiting_.size();
    for (auto& one : instances_)
      if (wanted > 0 && one.idle) {
        one.idle = false;
        after.rouse.push_back(&one.rouse);
        --wanted;
      }
  }
  if (any_late_)
    for (const auto& job : waiting_)
      again = std::min(again, job.late_at);
  return again == time_point::max() ? std::nullopt : std::optional{again};
}

/// After a change: rouses, and asks for a reminder of what comes earlier than the last one asked
/// for.
void custom_queue::arrange(time_point now, errands& after) {
  const auto again = rouse_idle(now, after);
  if (!again || (reminded_for_ && *reminded_for_ <= *again && *reminded_for_ > now))
    return;
  reminded_for_ = again;
  if (remind_)
    after.remind = &remind_;
}

void custom_queue::run(const errands& after) {
  for (const auto& job : after.rejected)
    end_with_error(*job.sink, {errc::busy, "Request timeout expired"});
  for (const auto* rouse : after.rouse)
    (*rouse)();
  if (after.remind != nullptr)
    (*after.remind)();
}

custom_batch custom_queue::take(std::size_t instance, time_point now) {
  errands after;
  custom_batch taken;
  {
    const std::lock_guard lock{mutex_};
    after.rejected = sort_out_late(now);
    if (!waiting_.empty())
      if (const auto go = next(now); go.at <= now) {
        const auto end = waiting_.begin() + static_cast<std::ptrdiff_t>(go.count);
        taken.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
        waiting_.erase(waiting_.begin(), end);
      }
    instances_[instance].idle = taken.empty() && instances_[instance].there;
    if (taken.empty())
      arrange(now, after);
  }
  run(after);
  for (const auto& job : taken)
    job.sink->on_accepted(request_id{}, 0);
  return taken;
}

std::optional<time_point> custom_queue::look(time_point now) {
  errands after;
  std::optional<time_point> again;
  {
    const std::lock_guard lock{mutex_};
    after.rejected = sort_out_late(now);
    again = rouse_idle(now, after);
    reminded_for_ = again;
  }
  run(after);
  return again;
}

void custom_queue::abandon(const response_sink_ptr& owner) {
  custom_batch gone;
  const std::lock_guard lock{mutex_};
  for (auto& job : waiting_)
    if (job.sink == owner)
      gone.push_back(std::move(job));
  std::erase_if(waiting_, [](const custom_job& job) { return job.sink == nullptr; });
}

void custom_queue::close(const error& why) {
  std::deque<custom_job> left;
  {
    const std::lock_guard lock{mutex_};
    closed_ = why;
    left.swap(waiting_);
  }
  for (const auto& job : left)
    end_with_error(*job.sink, why);
}

std::size_t custom_queue::size() const {
  const std::lock_guard lock{mutex_};
  return waiting_.size();
}

std::size_t custom_queue::unanswered() const {
  const std::lock_guard lock{mutex_};
  const auto busy = std::count_if(instances_.begin(), instances_.end(),
                                  [](const instance_seat& s) { return s.there && !s.idle; });
  return waiting_.size() + static_cast<std::size_t>(busy);
}

} // namespace troupe::actors
