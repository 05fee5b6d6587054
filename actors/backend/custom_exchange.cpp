#include "actors/backend/custom_exchange.hpp"

#include "actors/backend/tensor_types.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace troupe::actors {

namespace {

/// Elements of the tensor's data, or -1 when it ends within one.
std::int64_t elements_in(const backends::tensor& t, std::uint32_t element_bytes) {
  if (element_bytes > 0)
    return t.data.size() % element_bytes == 0
               ? static_cast<std::int64_t>(t.data.size() / element_bytes)
               : -1;
  std::int64_t count = 0;
  for (std::size_t at = 0; at < t.data.size(); ++count) {
    std::uint32_t length = 0;
    if (t.data.size() - at < sizeof length)
      return -1;
    std::memcpy(&length, t.data.data() + at, sizeof length);
    at += sizeof length;
    if (t.data.size() - at < length)
      return -1;
    at += length;
  }
  return count;
}

/// The product of the dimensions, or -1 for one that cannot be.
std::int64_t elements_of(const std::vector<std::int64_t>& shape) {
  constexpr std::int64_t most = std::int64_t{1} << 40;
  std::int64_t count = 1;
  for (const auto d : shape) {
    if (d < 0 || (d > 0 && count > most / d))
      return -1;
    count *= d;
  }
  return count;
}

} // namespace

custom_exchange::~custom_exchange() {
  // The sink counts by itself what its client has given up.
  if (!sink_->wanted()) {
    if (!ended_)
      leave(false);
    return;
  }
  end_with({errc::internal, fmt::format("the backend of model '{}' let go of the request without "
                                        "an answer",
                                        model_->name)});
}

result<void> custom_exchange::check(const backends::response& what) const {
  for (const auto& t : what.outputs) {
    const auto* declared = model_->find_output(t.name);
    if (declared == nullptr)
      return troupe::fail(errc::internal,
                          fmt::format("the backend of model '{}' sent the output '{}', which the "
                                      "model does not declare",
                                      model_->name, t.name));
    if (declared_type(t.type) != *declared->type)
      return troupe::fail(errc::internal,
                          fmt::format("the backend of model '{}' sent the output '{}' with "
                                      "another type than {}",
                                      model_->name, t.name, wire_name(*declared->type)));
    const auto wanted = elements_of(t.shape);
    const auto given = elements_in(t, byte_size(*declared->type));
    if (wanted < 0 || wanted != given)
      return troupe::fail(errc::internal,
                          fmt::format("the backend of model '{}' sent the output '{}' with a shape "
                                      "of {} elements and data of {}",
                                      model_->name, t.name, wanted, given));
  }
  return {};
}

void custom_exchange::respond(backends::response what, bool is_last) {
  if (auto good = check(what); !good)
    return end_with(std::move(good.error()));
  std::erase_if(what.outputs,
                [&](const backends::tensor& t) { return !request_->tensors->wants(t.name); });
  response_part part;
  part.responses.push_back(std::move(what));
  const std::lock_guard lock{mutex_};
  if (ended_)
    return;
  ended_ = is_last || !*model_->decoupled;
  if (ended_) {
    part.finish = engine::finish_reason::stop;
    leave(true);
  }
  sink_->on_part(std::move(part));
}

void custom_exchange::finish() {
  if (!*model_->decoupled)
    return end_with({errc::internal, fmt::format("the backend of model '{}' ended a request "
                                                 "without a response",
                                                 model_->name)});
  const std::lock_guard lock{mutex_};
  if (std::exchange(ended_, true))
    return;
  leave(true);
  response_part last;
  last.finish = engine::finish_reason::stop;
  sink_->on_part(std::move(last));
}

void custom_exchange::fail(error why) { end_with(std::move(why)); }

void custom_exchange::end_with(error why) {
  const std::lock_guard lock{mutex_};
  if (std::exchange(ended_, true))
    return;
  leave(false);
  end_with_error(*sink_, std::move(why));
}

/// Before the last part, so that an execution has been counted when its last answer is there.
void custom_exchange::leave(bool good) {
  if (good)
    within_->good = true;
  if (--within_->open == 0 && within_->good)
    sink_->on_executed(within_->batch_size, std::chrono::steady_clock::now() - within_->began);
}

bool custom_exchange::wanted() const { return !ended() && sink_->wanted(); }

bool custom_exchange::ended() const {
  const std::lock_guard lock{mutex_};
  return ended_;
}

custom_ways open_ways(const std::shared_ptr<const config::triton_model>& model, custom_batch jobs) {
  std::erase_if(jobs, [](const custom_job& job) { return !job.sink->wanted(); });
  const auto within = std::make_shared<custom_execution>();
  within->began = std::chrono::steady_clock::now();
  within->open = jobs.size();
  custom_ways ways;
  ways.reserve(jobs.size());
  for (auto& job : jobs) {
    within->batch_size += job.request->batch_size;
    ways.push_back(std::make_shared<custom_exchange>(model, std::move(job), within));
  }
  return ways;
}

void close_ways(const custom_ways& ways, const config::triton_model& model,
                const result<void>& done) {
  for (const auto& way : ways) {
    if (!done)
      way->fail(done.error());
    else if (!*model.decoupled && !way->ended())
      way->fail({errc::internal, fmt::format("execute of the backend '{}' returned without a "
                                             "response",
                                             *model.backend)});
  }
}

} // namespace troupe::actors
