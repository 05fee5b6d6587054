#pragma once

#include <cstdint>
#include <memory>

namespace troupe::bench {

/// oneDNN's bf16 product C[m, n] = A[m, k] W^T with weights in the order that it likes best.
class onednn_product {
public:
  onednn_product(std::int64_t m, std::int64_t n, std::int64_t k);
  ~onednn_product();
  onednn_product(const onednn_product&) = delete;
  onednn_product& operator=(const onednn_product&) = delete;

  /// Multiplies once on `threads` OpenMP threads and waits.
  void run(int threads);

private:
  struct state;
  std::unique_ptr<state> state_;
};

} // namespace troupe::bench
