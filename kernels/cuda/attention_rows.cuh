#pragma once

#include "kernels/cuda/device.cuh"

namespace troupe::kernels::cuda {

/// Attention of every row by a block of its own, for any type and dimension.
[[nodiscard]] result<void> attention_by_rows(const attention_args& args, stream_ref stream);

/// Attention by items on the tensor cores, for attends_by_items().
[[nodiscard]] result<void> attention_by_items(const attention_args& args, stream_ref stream);

/// Its decode items, and the joins.
[[nodiscard]] result<void> attention_decode(const attention_args& args, stream_ref stream);

/// The joins alone.
[[nodiscard]] result<void> attention_joins(const attention_args& args, stream_ref stream);

/// The prefill items of 128 rows, for speed: not the bits of attention_by_items().
[[nodiscard]] result<void> attention_prefill(const attention_args& args, stream_ref stream);

/// The same for heads of 128, by the products of warpgroups; attention_prefill() calls it.
[[nodiscard]] result<void> attention_warpgroups(const attention_args& args, stream_ref stream);

} // namespace troupe::kernels::cuda
