#pragma once

#include "engine/exec/cuda/runtime.hpp"

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

/// Attention that others wrote, over a paged cache as kernels/cuda/attention_ops.hpp has it, so
/// that it can be timed beside ours and held to the same outputs.
namespace troupe::bench {

/// The sequences of a step: causal attention of each one's rows over all its positions.
struct attention_load {
  struct member {
    /// Positions that are stored before its rows.
    std::int32_t past = 0;
    std::int32_t rows = 0;

    [[nodiscard]] std::int32_t positions() const noexcept { return past + rows; }
  };

  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t dim = 0;
  /// Positions of a block, and how many blocks there are.
  std::int32_t block_size = 0;
  std::int64_t blocks = 0;
  std::vector<member> sequences;
  /// The blocks of each sequence, as many as its positions need, one sequence behind the other.
  std::vector<std::int32_t> tables;

  [[nodiscard]] std::int32_t blocks_of(const member& one) const noexcept {
    return (one.positions() + block_size - 1) / block_size;
  }
  [[nodiscard]] std::int64_t rows() const noexcept {
    std::int64_t all = 0;
    for (const member& one : sequences)
      all += one.rows;
    return all;
  }
};

/// Where a load lies on the device, all of it bf16.
/// @shape  q, out  [rows, heads, dim], the rows of a sequence one behind the other
/// @shape  k, v    [blocks, kv_heads, block_size, dim]
struct attention_tensors {
  void* q = nullptr;
  void* k = nullptr;
  void* v = nullptr;
  void* out = nullptr;
};

/// A copy of `list` in memory of the device, once the stream gets there.
template <class T>
[[nodiscard]] result<engine::cuda::device_buffer>
copied(const std::vector<T>& list, std::string_view what, engine::cuda::stream_ref on) {
  const std::size_t bytes = list.size() * sizeof(T);
  auto made = engine::cuda::device_buffer::make(bytes, what);
  if (!made)
    return made;
  if (auto sent = engine::cuda::upload(made->data(), list.data(), bytes, on); !sent)
    return fail(sent.error());
  return made;
}

class attention_peer {
public:
  attention_peer() = default;
  attention_peer(const attention_peer&) = delete;
  attention_peer& operator=(const attention_peer&) = delete;
  virtual ~attention_peer() = default;

  [[nodiscard]] virtual std::string_view name() const = 0;
  /// Makes all ready that does not depend on where the load lies; no part of what is timed. Waits
  /// for `on`.
  /// @errors unsupported: it has no kernel for this load; internal: the peer's own words
  [[nodiscard]] virtual result<void> plan(const attention_load& load,
                                          engine::cuda::stream_ref on) = 0;
  /// Enqueues the load that was planned last; may be captured in a graph. The scores' scale is
  /// 1 / sqrt(dim).
  [[nodiscard]] virtual result<void> run(const attention_tensors& at,
                                         engine::cuda::stream_ref on) = 0;
};

/// Those that this build has: none without their headers.
[[nodiscard]] std::vector<std::unique_ptr<attention_peer>> attention_peers();

/// NVIDIA's cuDNN, as libcudnn of the machine has it.
/// @errors not_found: there is none; internal: it does not start
[[nodiscard]] result<std::unique_ptr<attention_peer>> make_cudnn_peer();

} // namespace troupe::bench
