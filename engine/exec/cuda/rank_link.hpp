#pragma once

#include "engine/exec/cuda/runtime.hpp"
#include "engine/exec/nccl.hpp"
#include "engine/models/shard.hpp"

#include <array>
#include <chrono>
#include <memory>
#include <optional>

namespace troupe::engine::cuda {

/// What every rank tells the others before it reserves its KV cache. All but the number of blocks
/// must be equal.
struct rank_limits {
  std::uint64_t numerics = 0;
  std::uint64_t max_model_len = 0;
  std::uint64_t block_size = 0;
  std::uint64_t max_num_seqs = 0;
  std::uint64_t max_num_batched_tokens = 0;
  std::uint64_t num_blocks = 0;
  std::uint64_t num_host_blocks = 0;
};

/// What ties a GPU to those of the other ranks: sums and gatherings on the stream of its steps, and
/// waiting that ends. While another rank is gone, a kernel of NCCL waits for it on the device; so
/// nothing here waits without a look at the group and at the clock, and so few sums are ever
/// enqueued outside of graphs that the driver never has to make the caller wait. The executor's
/// thread alone.
class rank_link {
public:
  using clock = std::chrono::steady_clock;

  /// @errors as nccl_communicator::make
  [[nodiscard]] static result<std::unique_ptr<rank_link>> make(std::shared_ptr<collective> group,
                                                               const device_info& device,
                                                               std::chrono::milliseconds limit);

  [[nodiscard]] model_shard shard() const noexcept { return {group_->rank(), group_->ranks()}; }

  /// As nccl_communicator's.
  [[nodiscard]] result<void> sum(void* x, std::int64_t count, kernels::dtype type, stream_ref on);
  [[nodiscard]] result<void> gather(float* all, std::int64_t count, stream_ref on);

  /// Compares the limits of all ranks; mine, with the least numbers of blocks of any.
  /// @errors conflict: names the rank that differs
  [[nodiscard]] result<rank_limits> agree(const rank_limits& mine);

  /// Why nothing more comes of this group, if so.
  [[nodiscard]] std::optional<error> lost() const;
  /// Whether what was enqueued at `begin` has taken longer than ranks may.
  [[nodiscard]] bool overdue(clock::time_point begin) const noexcept {
    return clock::now() - begin > limit_;
  }
  /// Waits for the event as wait() does, but no longer than the group lives and its limit lasts.
  /// @errors timed_out, which ends the group; what the group failed with
  [[nodiscard]] result<void> wait_for(const event& mark, clock::time_point begin);
  /// Whether all that is enqueued ends by itself.
  [[nodiscard]] bool drains(stream_ref all);
  /// Ends the group for all ranks, with this rank's name before the reason.
  void abort(const error& why);
  /// Ends what waits on the device. Graphs with sums in them have to be destroyed before.
  void close() noexcept { communicator_.abort(); }

private:
  rank_link(std::shared_ptr<collective> group, nccl_communicator communicator,
            std::chrono::milliseconds limit)
      : group_{std::move(group)}, communicator_{std::move(communicator)}, limit_{limit} {}

  [[nodiscard]] result<void> pace(stream_ref on);

  /// Between two marks that pace() sets. A layer enqueues two sums among a dozen kernels, and the
  /// driver takes a thousand.
  static constexpr std::uint32_t sums_between_marks = 32;

  std::shared_ptr<collective> group_;
  nccl_communicator communicator_;
  std::chrono::milliseconds limit_;
  std::array<event, 2> marks_;
  event drained_;
  std::uint32_t sums_ = 0;
};

} // namespace troupe::engine::cuda
