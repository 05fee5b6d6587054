#pragma once

#include "kernels/cuda/ops.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::kernels::cuda {

struct matmul_args {
  const void* a = nullptr;
  std::int64_t lda = 0;
  /// [n, k], contiguous.
  const void* w = nullptr;
  void* out = nullptr;
  std::int64_t ldo = 0;
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  /// Of a and w: f32 (TF32 off), bf16 or f16 (sums in f32).
  dtype type = dtype::bf16;
  /// Of out: `type` or f32.
  dtype out_type = dtype::bf16;
  /// Adds to what is in out.
  bool add = false;
  /// Where a kernel of our own serves the shape that has a part in norms.
  begun_norm begins{};
  ended_norm ends{};
  row_leader* leaders = nullptr;
};

/// The same product for a kernel of our own.
[[nodiscard]] ordered_matmul_args plain(const matmul_args& args);

/// What stands behind a product in the pass that it is tuned for.
struct matmul_follower {
  /// Enqueues it on the same stream; may be empty.
  std::function<result<void>()> run;
  /// It is silu_mul(), which our kernels make in the product.
  bool in_product = false;
  /// It finds leaders, which the kernel for many rows tells, to here; nullptr for another one.
  row_leader* leaders = nullptr;
};

/// Shapes and what was found to serve them best, as text without blanks.
using matmul_choices = std::map<std::string, std::string>;

/// Products through cuBLASLt, and through the kernels of our own where tune() finds them faster.
/// Remembers which algorithm serves a shape; bits depend on the algorithm and so on m. A number of
/// rows that was not tuned takes the kernel for many rows where the next tuned number does.
/// One thread and one stream at a time. Move-only.
class matmul_library {
public:
  /// @pre    `workspace` is device memory of `bytes` that outlives this object
  /// @errors internal: cuBLASLt does not start
  [[nodiscard]] static result<matmul_library> make(void* workspace, std::size_t bytes);

  matmul_library();
  matmul_library(matmul_library&&) noexcept;
  matmul_library& operator=(matmul_library&&) noexcept;
  ~matmul_library();

  /// out = a w^T, or with `add` out += a w^T.
  /// @shape  a [m, k], w [n, k] in `type`; out [m, n] in out_type
  /// @errors bad_shape; unsupported: no algorithm for the shape; internal
  /// @async  enqueues on `stream`
  /// @cost   2 m n k flops; a new shape asks for its algorithm first, tens of microseconds
  [[nodiscard]] result<void> run(const matmul_args& args, stream_ref stream);

  using gated_product = result<void>(const ordered_matmul_args&, stream_ref);
  /// The product of gate and up with silu_mul() behind it that goes with the fastest kernel for a
  /// shape, if tune() found one of ours to be that; else nullptr.
  [[nodiscard]] gated_product* gated(const matmul_args& args) const;

  /// Which kernel serves a shape: cuBLASLt, skinny, streamed, halved or wide.
  [[nodiscard]] std::string_view kernel_of(const matmul_args& args) const;

  /// Measures the algorithms for a shape and keeps the fastest. `weights` are matrices of the shape
  /// of args.w, taken in turns so that what is timed is the reading of them from memory. With
  /// `behind` what is timed is a chain, a product and a small kernel in turns: there a kernel that
  /// begins before its forerunner ends shows what it gains, which a product alone does not.
  /// @errors as run
  /// @cost   waits for the device; some 80 products
  [[nodiscard]] result<void> tune(const matmul_args& args, std::span<const void* const> weights,
                                  stream_ref stream, const matmul_follower& behind = {});

  /// The kernels of our own that take a shape.
  [[nodiscard]] static std::vector<std::string_view> own_kernels_of(const matmul_args& args);

  /// Lets one of them serve a shape from now on, or any other name the fastest of cuBLASLt's
  /// algorithms, whatever tune() found to be the faster.
  void choose(const matmul_args& args, std::string_view kernel);

  /// Whether recall() brought a choice for a shape.
  [[nodiscard]] bool recalls(const matmul_args& args) const;

  /// What tune() and choose() have chosen so far.
  [[nodiscard]] matmul_choices choices() const;

  /// Lets tune() take these choices of an earlier library instead of measuring. They hold for one
  /// device, one version() and one size of the workspace; what does not fit is measured anew.
  void recall(matmul_choices known);

  /// Changes with cuBLASLt and with the kernels of our own.
  [[nodiscard]] static std::string version();

private:
  struct state;
  std::unique_ptr<state> state_;
};

} // namespace troupe::kernels::cuda
