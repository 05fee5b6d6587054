#pragma once

#include "tests/bench/attention/attention_peer.hpp"

#include <memory>
#include <vector>

/// FlashInfer's kernels as peers. A peer is a file of its own, which alone includes FlashInfer's
/// headers and makes one kernel, for these take long to compile.
namespace troupe::bench {

/// What all of them take of a load, in the terms of FlashInfer: pages are blocks.
class flashinfer_peer : public attention_peer {
public:
  using index = std::int32_t;
  /// On the device: the pages of all sequences, where each one's begin, and how many positions its
  /// last has.
  struct page_tables {
    index* pages;
    index* begins;
    index* last_positions;
  };

  [[nodiscard]] result<void> plan(const attention_load& load, engine::cuda::stream_ref on) final;
  [[nodiscard]] result<void> run(const attention_tensors& at, engine::cuda::stream_ref on) final;

protected:
  /// Numbers that lie on the host and on the device.
  struct mirrored {
    std::vector<index> host;
    engine::cuda::device_buffer device;

    [[nodiscard]] index* here() noexcept { return host.data(); }
    [[nodiscard]] index* there() const noexcept { return device.as<index>(); }
  };

  /// @returns a code of the CUDA runtime
  /// @throws  what FlashInfer throws
  [[nodiscard]] virtual int plan_kernel(engine::cuda::stream_ref on) = 0;
  [[nodiscard]] virtual int launch(const attention_tensors& at, engine::cuda::stream_ref on) = 0;
  /// Whether the kernel is made for such loads.
  [[nodiscard]] virtual bool takes(const attention_load& load) const = 0;

  [[nodiscard]] std::uint32_t sequences() const noexcept {
    return static_cast<std::uint32_t>(load_.sequences.size());
  }
  [[nodiscard]] std::uint32_t rows() const noexcept {
    return static_cast<std::uint32_t>(load_.rows());
  }
  [[nodiscard]] float scale() const noexcept;
  [[nodiscard]] page_tables tables() const noexcept {
    return {pages_.there(), page_begin_.there(), last_page_positions_.there()};
  }
  /// Places in the working memory that a plan names by their offsets.
  template <class T = index>
  [[nodiscard]] T* planned(std::int64_t offset) const noexcept {
    return reinterpret_cast<T*>(numbers_.as<std::byte>() + offset);
  }
  template <class T>
  [[nodiscard]] T* partial(std::int64_t offset) const noexcept {
    return reinterpret_cast<T*>(partials_.as<std::byte>() + offset);
  }

  attention_load load_;
  /// Where the rows and where the pages of each sequence begin, and end behind the last.
  mirrored row_begin_;
  mirrored page_begin_;
  mirrored pages_;
  mirrored last_page_positions_;
  mirrored positions_;
  engine::cuda::device_buffer partials_;
  engine::cuda::device_buffer numbers_;
  engine::cuda::pinned_buffer staged_;

private:
  [[nodiscard]] result<void> reserve();
};

/// Decodes on the ordinary multipliers, a query group's heads together.
[[nodiscard]] std::unique_ptr<attention_peer> make_flashinfer_decode();
/// FlashAttention 2: any rows, by mma in tiles of 16, 64 or 128.
[[nodiscard]] std::unique_ptr<attention_peer> make_flashinfer_tiles();
/// FlashAttention 3: prompts, by products of warpgroups.
[[nodiscard]] std::unique_ptr<attention_peer> make_flashinfer_hopper();
/// Prompts and decodes by one persistent kernel, in tiles of 128 and of 16.
[[nodiscard]] std::unique_ptr<attention_peer> make_flashinfer_persistent();

} // namespace troupe::bench
