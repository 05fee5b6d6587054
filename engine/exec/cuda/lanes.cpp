#include "engine/exec/cuda/lanes.hpp"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <string>

namespace troupe::engine::cuda {

namespace {

/// Multiprocessors for answers. The driver gives out eight at a time.
constexpr std::array<int, 7> offers{16, 24, 32, 48, 64, 80, 96};

/// The driver's functions, found by the runtime: nothing of ours is linked to the driver.
struct green_contexts {
  decltype(&cuDeviceGet) device = nullptr;
  decltype(&cuDeviceGetDevResource) resource_of = nullptr;
  decltype(&cuDevSmResourceSplitByCount) split = nullptr;
  decltype(&cuDevResourceGenerateDesc) describe = nullptr;
  decltype(&cuGreenCtxCreate) create = nullptr;
  decltype(&cuGreenCtxDestroy) destroy = nullptr;
  decltype(&cuGreenCtxStreamCreate) make_stream = nullptr;
  bool complete = false;
};

template <class Function>
bool find(const char* name, Function& to) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult status{};
  // As the headers are that the types of these functions come from.
  if (cudaGetDriverEntryPointByVersion(name, &found, CUDA_VERSION, cudaEnableDefault, &status) !=
          cudaSuccess ||
      status != cudaDriverEntryPointSuccess) {
    static_cast<void>(cudaGetLastError());
    return false;
  }
  to = reinterpret_cast<Function>(found);
  return true;
}

const green_contexts& driver() {
  static const green_contexts known = [] {
    green_contexts d;
    d.complete = find("cuDeviceGet", d.device) && find("cuDeviceGetDevResource", d.resource_of) &&
                 find("cuDevSmResourceSplitByCount", d.split) &&
                 find("cuDevResourceGenerateDesc", d.describe) &&
                 find("cuGreenCtxCreate", d.create) && find("cuGreenCtxDestroy", d.destroy) &&
                 find("cuGreenCtxStreamCreate", d.make_stream);
    return d;
  }();
  return known;
}

result<void> good(CUresult status, const char* what) {
  if (status == CUDA_SUCCESS)
    return {};
  return fail(errc::unsupported, fmt::format("{}: error {} of the driver", what, int{status}));
}

/// The multiprocessors of a device in two parts.
struct division {
  CUdevice device = 0;
  CUdevResource answers{};
  CUdevResource prompts{};
};

result<division> divide(int device, int for_answers) {
  division made;
  CUdevResource all{};
  unsigned groups = 1;
  if (auto done = good(driver().device(&made.device, device), "cuDeviceGet"); !done)
    return fail(done.error());
  if (auto done = good(driver().resource_of(made.device, &all, CU_DEV_RESOURCE_TYPE_SM),
                       "cuDeviceGetDevResource");
      !done)
    return fail(done.error());
  if (auto done = good(driver().split(&made.answers, &groups, &all, &made.prompts, 0,
                                      static_cast<unsigned>(for_answers)),
                       "cuDevSmResourceSplitByCount");
      !done)
    return fail(done.error());
  if (groups != 1 || made.prompts.type != CU_DEV_RESOURCE_TYPE_SM || made.prompts.sm.smCount == 0)
    return fail(errc::unsupported, fmt::format("{} of {} multiprocessors cannot be set apart",
                                               for_answers, all.sm.smCount));
  return made;
}

} // namespace

void green_context_closer::operator()(CUgreenCtx_st* context) const noexcept {
  static_cast<void>(driver().destroy(context));
}

result<lane_pair> lane_pair::make(int device, int for_answers) {
  if (!driver().complete)
    return fail(errc::unsupported, "the driver has no green contexts");
  auto parts = divide(device, for_answers);
  if (!parts)
    return fail(parts.error());
  // Streams of one priority may share a queue of the device, where work of one would wait for work
  // of the other.
  int least = 0, greatest = 0;
  static_cast<void>(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  const auto open = [&](lane& to, CUdevResource& of, int priority) -> result<void> {
    CUdevResourceDesc described = nullptr;
    CUgreenCtx context = nullptr;
    CUstream on = nullptr;
    if (auto done = good(driver().describe(&described, &of, 1), "cuDevResourceGenerateDesc"); !done)
      return done;
    if (auto done =
            good(driver().create(&context, described, parts->device, CU_GREEN_CTX_DEFAULT_STREAM),
                 "cuGreenCtxCreate");
        !done)
      return done;
    to.context_.reset(context);
    if (auto done = good(driver().make_stream(&on, context, CU_STREAM_NON_BLOCKING, priority),
                         "cuGreenCtxStreamCreate");
        !done)
      return done;
    to.stream_.reset(on);
    to.count_ = static_cast<int>(of.sm.smCount);
    to.share_ = kernels::cuda::multiprocessor_share{on, to.count_};
    return {};
  };
  lane_pair made;
  if (auto done = open(made.answers_, parts->answers, greatest); !done)
    return fail(done.error());
  if (auto done = open(made.prompts_, parts->prompts, least); !done)
    return fail(done.error());
  for (event* const mark : {&made.forked_, &made.answered_, &made.prompted_}) {
    auto one = make_event(true);
    if (!one)
      return fail(one.error());
    *mark = std::move(*one);
  }
  // Whether the runtime launches there, and events go from stream to stream.
  auto main = make_stream();
  if (!main)
    return fail(main.error());
  for (const auto& step : std::array<result<void>, 4>{
           made.fork(main->get()), kernels::cuda::stall(1, made.answers_.get()),
           kernels::cuda::stall(1, made.prompts_.get()), made.join(main->get())})
    if (!step)
      return fail(step.error());
  if (auto done = wait(main->get()); !done)
    return fail(done.error());
  return made;
}

result<void> lane_pair::fork(stream_ref main) const {
  if (auto marked = record(forked_, main); !marked)
    return marked;
  if (auto held = hold(answers_.get(), forked_); !held)
    return held;
  return hold(prompts_.get(), forked_);
}

result<void> lane_pair::join(stream_ref main) const {
  if (auto marked = record(answered_, answers_.get()); !marked)
    return marked;
  if (auto marked = record(prompted_, prompts_.get()); !marked)
    return marked;
  if (auto held = hold(main, answered_); !held)
    return held;
  return hold(main, prompted_);
}

result<void> lane_pair::wait_for_both() const {
  if (auto done = wait(answers_.get()); !done)
    return done;
  return wait(prompts_.get());
}

result<lane_pair::times> lane_pair::last_times() const {
  const auto answers = milliseconds_between(forked_, answered_);
  if (!answers)
    return fail(answers.error());
  const auto prompts = milliseconds_between(forked_, prompted_);
  if (!prompts)
    return fail(prompts.error());
  return times{*answers, *prompts};
}

result<lane_pairs> lane_pairs::make(int device) {
  lane_pairs made;
  for (const int count : offers) {
    auto pair = lane_pair::make(device, count);
    if (!pair && made.empty())
      return fail(pair.error());
    // The driver may have given more than was asked for.
    const int given = pair ? pair->answers().multiprocessors() : 0;
    if (given == 0 || (!made.empty() && given <= made.offered_.back()))
      continue;
    made.offered_.push_back(given);
    made.pairs_.push_back(std::move(*pair));
  }
  return made;
}

const lane_pair& lane_pairs::with(int for_answers) const {
  const auto at = std::ranges::lower_bound(offered_, for_answers);
  const auto index = std::min<std::ptrdiff_t>(at - offered_.begin(), std::ssize(offered_) - 1);
  return pairs_.at(static_cast<std::size_t>(index));
}

void lane_pairs::drain() const noexcept {
  for (const lane_pair& one : pairs_)
    static_cast<void>(one.wait_for_both());
}

} // namespace troupe::engine::cuda
