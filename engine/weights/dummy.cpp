// Random weights, for benches and tests of models whose checkpoint is not at hand.
#include "engine/weights/fingerprint.hpp"
#include "engine/weights/weight_source.hpp"

#include "troupe/base/prng.hpp"

#include <cmath>

namespace troupe::engine {

namespace {

using kernels::dtype;

/// About N(0, sigma): the sum of four uniforms, with their mean and variance taken out.
class rough_normal {
public:
  rough_normal(std::uint64_t seed, double sigma)
      : state_{seed}, scale_{static_cast<float>(sigma * std::sqrt(3.0) / 65536.0)} {}

  float operator()() noexcept {
    const std::uint64_t word = state_();
    const auto sum = static_cast<std::int32_t>((word & 0xFFFFU) + (word >> 16 & 0xFFFFU) +
                                               (word >> 32 & 0xFFFFU) + (word >> 48));
    return static_cast<float>(sum - 131070) * scale_;
  }

private:
  splitmix64 state_;
  float scale_;
};

class dummy_weights final : public weight_source {
public:
  explicit dummy_weights(dummy_options options) : options_{options} {}

  result<weight_tensor> get(const weight_request& wanted) override {
    weight_tensor tensor;
    tensor.view.type = options_.type;
    tensor.view.rank = static_cast<int>(wanted.shape.size());
    std::copy(wanted.shape.begin(), wanted.shape.end(), tensor.view.shape.begin());
    const auto count = static_cast<std::size_t>(tensor.view.size());
    auto memory = kernels::buffer::make(count * kernels::size_of(options_.type));
    if (!memory)
      return fail(memory.error());
    tensor.storage = std::move(*memory);
    tensor.view.data = tensor.storage.data();
    if (tensor.view.rank < 2)
      fill(tensor, [] { return 1.0F; });
    else
      fill(tensor, rough_normal{seed_of(wanted.name),
                                1.0 / std::sqrt(static_cast<double>(tensor.view.shape[1]))});
    return tensor;
  }

  void done_with(const weight_tensor&) noexcept override {}
  std::vector<std::string> unused() const override { return {}; }

  std::uint64_t identity() const override {
    fingerprint print;
    print.add(std::string_view{"dummy"});
    print.add(options_.seed);
    return print.value();
  }

private:
  std::uint64_t seed_of(std::string_view name) const {
    fingerprint print;
    print.add(options_.seed);
    print.add(name);
    return print.value();
  }

  template <class Next>
  void fill(weight_tensor& tensor, Next next) const {
    const std::int64_t count = tensor.view.size();
    for (std::int64_t i = 0; i < count; ++i)
      kernels::store_f32(tensor.storage.data(), options_.type, i, next());
  }

  dummy_options options_;
};

} // namespace

std::unique_ptr<weight_source> make_dummy_weights(dummy_options options) {
  return std::make_unique<dummy_weights>(options);
}

} // namespace troupe::engine
