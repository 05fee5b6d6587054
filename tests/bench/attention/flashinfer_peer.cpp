#include "tests/bench/attention/flashinfer_peer.hpp"

#include <cmath>
#include <exception>
#include <string>

namespace troupe::bench {

namespace cuda = engine::cuda;

namespace {

/// What FlashInfer's own wrappers take, or more.
constexpr std::size_t partial_bytes = std::size_t{384} << 20U;
constexpr std::size_t number_bytes = std::size_t{16} << 20U;

} // namespace

result<void> flashinfer_peer::mirrored::send(cuda::stream_ref on) {
  const std::size_t bytes = host.size() * sizeof(index);
  if (device.size() < bytes) {
    auto made = cuda::device_buffer::make(bytes, "a peer's batch");
    if (!made)
      return fail(made.error());
    device = std::move(*made);
  }
  return cuda::upload(device.data(), host.data(), bytes, on);
}

float flashinfer_peer::scale() const noexcept {
  return 1.0F / std::sqrt(static_cast<float>(load_.dim));
}

result<void> flashinfer_peer::reserve() {
  if (staged_.data() != nullptr)
    return {};
  auto partials = cuda::device_buffer::make(partial_bytes, "a peer's partial results");
  auto numbers = cuda::device_buffer::make(number_bytes, "a peer's plan");
  auto staged = cuda::pinned_buffer::make(number_bytes, "a peer's plan");
  if (!partials || !numbers || !staged)
    return fail(errc::out_of_memory, "a peer's working memory");
  partials_ = std::move(*partials);
  numbers_ = std::move(*numbers);
  staged_ = std::move(*staged);
  return {};
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
  for (mirrored* one : {&row_begin_, &page_begin_, &pages_, &last_page_positions_, &positions_})
    if (auto sent = one->send(on); !sent)
      return sent;
  try {
    if (auto planned = cuda::check(plan_kernel(on), name()); !planned)
      return planned;
  } catch (const std::exception& e) {
    return fail(errc::unsupported, std::string{name()} + ": " + e.what());
  }
  return cuda::wait(on);
}

result<void> flashinfer_peer::run(const attention_tensors& at, cuda::stream_ref on) {
  try {
    return cuda::check(launch(at, on), name());
  } catch (const std::exception& e) {
    return fail(errc::unsupported, std::string{name()} + ": " + e.what());
  }
}

} // namespace troupe::bench
