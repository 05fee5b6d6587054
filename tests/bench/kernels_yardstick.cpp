#include "tests/bench/kernels_yardstick.hpp"

#include <oneapi/dnnl/dnnl.hpp>

#include <omp.h>
#include <unordered_map>

namespace troupe::bench {

struct onednn_product::state {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::matmul multiply;
  std::unordered_map<int, dnnl::memory> arguments;
};

onednn_product::onednn_product(std::int64_t m, std::int64_t n, std::int64_t k)
    : state_{std::make_unique<state>()} {
  using dnnl::memory;
  state& s = *state_;
  const memory::desc a{{m, k}, memory::data_type::bf16, memory::format_tag::ab};
  const memory::desc w{{k, n}, memory::data_type::bf16, memory::format_tag::any};
  const memory::desc c{{m, n}, memory::data_type::f32, memory::format_tag::ab};
  const dnnl::matmul::primitive_desc description{dnnl::matmul::desc{a, w, c}, s.engine};
  s.multiply = dnnl::matmul{description};
  s.arguments = {{DNNL_ARG_SRC, memory{a, s.engine}},
                 {DNNL_ARG_WEIGHTS, memory{description.weights_desc(), s.engine}},
                 {DNNL_ARG_DST, memory{c, s.engine}}};
  // Small values everywhere: their sum stays finite and no denormal slows a multiplier.
  for (const int argument : {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS}) {
    memory& x = s.arguments[argument];
    auto* data = static_cast<std::uint16_t*>(x.get_data_handle());
    for (std::size_t i = 0; i < x.get_desc().get_size() / 2; ++i)
      data[i] = static_cast<std::uint16_t>(0x3C00U + i % 127);
  }
}

onednn_product::~onednn_product() = default;

void onednn_product::run(int threads) {
  omp_set_num_threads(threads);
  state_->multiply.execute(state_->stream, state_->arguments);
  state_->stream.wait();
}

} // namespace troupe::bench
