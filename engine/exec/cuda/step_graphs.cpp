#include "engine/exec/cuda/step_graphs.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>

namespace troupe::engine::cuda {

namespace {

constexpr std::array<std::uint32_t, 14> all_buckets{1,  2,  4,  8,   16,  24,  32,
                                                    48, 64, 96, 128, 160, 192, 256};

} // namespace

void graph_closer::operator()(CUgraphExec_st* graph) const noexcept {
  static_cast<void>(cudaGraphExecDestroy(graph));
}

std::span<const std::uint32_t> step_graphs::buckets() noexcept { return all_buckets; }

std::uint32_t step_graphs::bucket_of(std::uint32_t rows, std::uint32_t most) noexcept {
  const auto at = std::lower_bound(all_buckets.begin(), all_buckets.end(), rows);
  return at == all_buckets.end() ? rows : std::min(*at, most);
}

result<step_graphs::graph> step_graphs::capture(const std::function<result<void>()>& pass,
                                                stream_ref on) {
  if (auto begun =
          check(cudaStreamBeginCapture(on, cudaStreamCaptureModeThreadLocal), "capturing a graph");
      !begun)
    return fail(begun.error());
  const result<void> passed = pass();
  cudaGraph_t captured = nullptr;
  const auto ended = check(cudaStreamEndCapture(on, &captured), "capturing a graph");
  if (!passed || !ended) {
    if (captured != nullptr)
      cudaGraphDestroy(captured);
    return fail(passed ? ended.error() : passed.error());
  }
  cudaGraphExec_t made = nullptr;
  const auto good = check(cudaGraphInstantiate(&made, captured, 0), "making a graph");
  cudaGraphDestroy(captured);
  if (!good)
    return fail(good.error());
  return graph{made};
}

result<void> step_graphs::run(const graph_key& key, const std::function<result<void>()>& pass,
                              stream_ref on) {
  const auto [at, first] = graphs_.try_emplace(key);
  if (first)
    return pass();
  if (!at->second) {
    auto made = capture(pass, on);
    if (!made)
      return fail(made.error());
    at->second = std::move(*made);
  }
  return check(cudaGraphLaunch(at->second.get(), on), "starting a graph");
}

} // namespace troupe::engine::cuda
