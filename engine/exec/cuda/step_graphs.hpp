#pragma once

#include "engine/exec/cuda/runtime.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>

struct CUgraphExec_st;

namespace troupe::engine::cuda {

struct graph_closer {
  void operator()(CUgraphExec_st* graph) const noexcept;
};

/// What graphs of decode steps differ in.
struct graph_key {
  std::uint32_t rows = 0;
  /// Whether splits are joined.
  bool joins = false;
  /// As forward_batch has them.
  int turned = 0;
  bool logits = true;

  auto operator<=>(const graph_key&) const = default;
};

/// CUDA graphs of decode steps. A kind of step is captured when it comes for the second time, so
/// graphs cost no start-up time.
class step_graphs {
public:
  /// The number of rows that a graph for `rows` of them has; `rows` itself when there is none.
  [[nodiscard]] static std::uint32_t bucket_of(std::uint32_t rows, std::uint32_t most) noexcept;
  /// The buckets up to `most`, ascending.
  [[nodiscard]] static std::span<const std::uint32_t> buckets() noexcept;

  /// Enqueues what `pass` enqueues: by calling it, or by a graph of it made before.
  /// @pre    equal keys mean that `pass` enqueues the same work on the same addresses
  [[nodiscard]] result<void> run(const graph_key& key, const std::function<result<void>()>& pass,
                                 stream_ref on);
  void clear() noexcept { graphs_.clear(); }

private:
  using graph = std::unique_ptr<CUgraphExec_st, graph_closer>;

  [[nodiscard]] static result<graph> capture(const std::function<result<void>()>& pass,
                                             stream_ref on);

  /// Null for a kind of step that came once.
  std::map<graph_key, graph> graphs_;
};

} // namespace troupe::engine::cuda
