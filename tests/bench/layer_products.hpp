#pragma once

#include "kernels/cuda/matmul.hpp"
#include "tests/bench/cuda_bench.hpp"

#include <array>
#include <cmath>
#include <string>
#include <vector>

namespace troupe::bench {

/// The products of the layers of one step of Llama-3.1-8B's shape in bf16, without the head.
class layer_products {
public:
  using buffer = engine::cuda::device_buffer;

  /// @param  sigma  of weights and rows
  layer_products(std::int64_t rows, double sigma, engine::cuda::stream_ref on)
      : rows_{rows}, on_{on}, workspace_{must(buffer::make(workspace_bytes, "workspace"))},
        library_{must(kernels::cuda::matmul_library::make(workspace_.data(), workspace_bytes))},
        a_{random_buffer(rows * inner, sigma)},
        out_{must(buffer::make(static_cast<std::size_t>(rows * 2 * inner) * 4, "out"))} {
    for (const product& p : of_layer)
      for (int i = 0; i < copies; ++i)
        weights_.push_back(random_buffer(p.n * p.k, sigma / std::sqrt(static_cast<double>(p.k))));
    must(engine::cuda::wait(engine::cuda::stream_ref{nullptr}));
    for (std::size_t i = 0; i < of_layer.size(); ++i)
      must(library_.tune(args_of(i, 0), weights_of(i), on_));
  }

  /// Takes cuBLASLt's fastest algorithms, whatever was faster.
  void choose_library() {
    for (std::size_t i = 0; i < of_layer.size(); ++i)
      library_.choose(args_of(i, 0), "cuBLASLt");
  }
  [[nodiscard]] std::string kernels() const {
    std::string text;
    for (std::size_t i = 0; i < of_layer.size(); ++i)
      text += fmt::format("{}{}", i == 0 ? "" : ", ", library_.kernel_of(args_of(i, 0)));
    return text;
  }
  /// Enqueues those of all layers.
  void pass() {
    for (int layer = 0; layer < layers; ++layer)
      for (std::size_t i = 0; i < of_layer.size(); ++i)
        must(library_.run(args_of(i, layer), on_));
  }
  [[nodiscard]] double flops() const {
    double elements = 0;
    for (const product& p : of_layer)
      elements += static_cast<double>(p.n * p.k);
    return 2 * elements * static_cast<double>(rows_) * layers;
  }

private:
  struct product {
    std::int64_t n;
    std::int64_t k;
    /// Adds to the residual, as o_proj and down_proj do.
    bool add;
  };
  static constexpr std::int64_t hidden = 4096;
  static constexpr std::int64_t inner = 14336;
  static constexpr std::int64_t qkv_cols = 6144;
  static constexpr std::array<product, 4> of_layer{{{qkv_cols, hidden, false},
                                                    {hidden, hidden, true},
                                                    {2 * inner, hidden, false},
                                                    {hidden, inner, true}}};
  static constexpr int layers = 32;
  /// Layers with weights of their own: more than the L2 cache holds.
  static constexpr int copies = 3;
  static constexpr std::size_t workspace_bytes = std::size_t{64} << 20U;

  [[nodiscard]] std::vector<const void*> weights_of(std::size_t i) const {
    std::vector<const void*> out;
    for (int copy = 0; copy < copies; ++copy)
      out.push_back(weights_[i * copies + static_cast<std::size_t>(copy)].data());
    return out;
  }
  [[nodiscard]] kernels::cuda::matmul_args args_of(std::size_t i, int layer) const {
    const product& p = of_layer[i];
    return {.a = a_.data(),
            .lda = p.k,
            .w = weights_[i * copies + static_cast<std::size_t>(layer % copies)].data(),
            .out = out_.data(),
            .ldo = p.n,
            .m = rows_,
            .n = p.n,
            .k = p.k,
            .out_type = p.add ? kernels::dtype::f32 : kernels::dtype::bf16,
            .add = p.add};
  }

  std::int64_t rows_;
  engine::cuda::stream_ref on_;
  buffer workspace_;
  kernels::cuda::matmul_library library_;
  buffer a_;
  buffer out_;
  std::vector<buffer> weights_;
};

} // namespace troupe::bench
