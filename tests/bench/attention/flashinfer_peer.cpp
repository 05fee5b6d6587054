#include "tests/bench/attention/flashinfer_peer.hpp"

#include "engine/exec/cuda/chain.hpp"

#include <cmath>
#include <exception>
#include <string>

namespace troupe::bench {

namespace cuda = engine::cuda;

namespace {

/// What FlashInfer's own wrappers take, or more.
constexpr std::size_t partial_bytes = std::size_t{384} << 20U;
constexpr std::size_t number_bytes = std::size_t{16} << 20U;

/// What a call of FlashInfer says: some of its failures are a code of CUDA's, some are thrown.
template <class Call>
result<void> told(std::string_view name, Call call) {
  try {
    return cuda::check(call(), name);
  } catch (const std::exception& thrown) {
    return fail(errc::unsupported, std::string{name} + ": " + thrown.what());
  }
}

} // namespace

float flashinfer_peer::scale() const noexcept {
  return 1.0F / std::sqrt(static_cast<float>(load_.dim));
}

result<void> flashinfer_peer::reserve() {
  if (staged_.data() != nullptr)
    return {};
  cuda::chain all;
  all.take(partials_, [] { return cuda::device_buffer::make(partial_bytes, "partial results"); });
  all.take(numbers_, [] { return cuda::device_buffer::make(number_bytes, "a plan"); });
  all.then([&]() -> result<void> {
    auto staged = cuda::pinned_buffer::make(number_bytes, "a plan");
    if (!staged)
      return fail(staged.error());
    staged_ = std::move(*staged);
    return {};
  });
  return all.state();
}

result<void> flashinfer_peer::plan(const attention_load& load, cuda::stream_ref on) {
  if (load.dim != 128 || !takes(load))
    return fail(errc::unsupported, std::string{name()} + ": not for such loads");
  if (auto made = reserve(); !made)
    return made;
  load_ = load;
  row_begin_.host = page_begin_.host = {0};
  last_page_positions_.host.clear();
  positions_.host.clear();
  for (const attention_load::member& one : load.sequences) {
    row_begin_.host.push_back(row_begin_.host.back() + one.rows);
    page_begin_.host.push_back(page_begin_.host.back() + load.blocks_of(one));
    last_page_positions_.host.push_back((one.positions() - 1) % load.block_size + 1);
    positions_.host.push_back(one.positions());
  }
  pages_.host = load.tables;
  cuda::chain all;
  for (mirrored* one : {&row_begin_, &page_begin_, &pages_, &last_page_positions_, &positions_})
    all.take(one->device, [&] { return copied(one->host, "a peer's batch", on); });
  all.then([&] { return told(name(), [&] { return plan_kernel(on); }); });
  all.then([&] { return cuda::wait(on); });
  return all.state();
}

result<void> flashinfer_peer::run(const attention_tensors& at, cuda::stream_ref on) {
  return told(name(), [&] { return launch(at, on); });
}

} // namespace troupe::bench
