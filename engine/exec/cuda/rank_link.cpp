#include "engine/exec/cuda/rank_link.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace troupe::engine::cuda {

result<std::unique_ptr<rank_link>> rank_link::make(std::shared_ptr<collective> group,
                                                   const device_info& device,
                                                   std::chrono::milliseconds limit) {
  nccl_place place;
  place.group = group;
  place.device = device.uuid;
  place.enter = [index = device.index] { return use_device(index); };
  auto communicator = nccl_communicator::make(place);
  if (!communicator)
    return fail(communicator.error());
  std::unique_ptr<rank_link> made{new rank_link{std::move(group), std::move(*communicator), limit}};
  for (event* const mark : {&made->marks_[0], &made->marks_[1], &made->drained_}) {
    auto one = make_event(false);
    if (!one)
      return fail(one.error());
    *mark = std::move(*one);
  }
  return made;
}

result<void> rank_link::pace(stream_ref on) {
  if (capturing(on) || ++sums_ % sums_between_marks != 0)
    return {};
  const event& mark = marks_[sums_ / sums_between_marks % marks_.size()];
  if (auto waited = wait_for(mark, clock::now()); !waited)
    return waited;
  return record(mark, on);
}

result<void> rank_link::sum(void* x, std::int64_t count, kernels::dtype type, stream_ref on) {
  if (auto paced = pace(on); !paced)
    return paced;
  const nccl_type sent = type == kernels::dtype::f32    ? nccl_type::f32
                         : type == kernels::dtype::bf16 ? nccl_type::bf16
                                                        : nccl_type::f16;
  return communicator_.sum(x, static_cast<std::size_t>(count), sent, on);
}

result<void> rank_link::gather(float* all, std::int64_t count, stream_ref on) {
  if (auto paced = pace(on); !paced)
    return paced;
  return communicator_.gather(all, static_cast<std::size_t>(count), nccl_type::f32, on);
}

result<rank_limits> rank_link::agree(const rank_limits& mine) {
  std::vector<rank_limits> all(group_->ranks());
  // A slow disk may keep a rank for long; its death ends the wait.
  if (auto met = group_->all_gather({.mine = std::as_bytes(std::span{&mine, 1}),
                                     .all = std::as_writable_bytes(std::span{all}),
                                     .tag = 0,
                                     .limit = std::chrono::hours{24}});
      !met)
    return fail(met.error());
  rank_limits least = mine;
  for (std::uint32_t rank = 0; rank < all.size(); ++rank) {
    const rank_limits& other = all[rank];
    if (other.numerics != mine.numerics)
      return fail(errc::conflict,
                  fmt::format("{} has other weights, types or another kind of GPU than {}; the "
                              "ranks of a replica need the same model files and equal GPUs",
                              group_->name_of(rank), group_->name_of(group_->rank())));
    if (other.max_model_len != mine.max_model_len || other.block_size != mine.block_size ||
        other.max_num_seqs != mine.max_num_seqs ||
        other.max_num_batched_tokens != mine.max_num_batched_tokens)
      return fail(errc::conflict,
                  fmt::format("{} and {} were given other limits", group_->name_of(rank),
                              group_->name_of(group_->rank())));
    least.num_blocks = std::min(least.num_blocks, other.num_blocks);
    least.num_host_blocks = std::min(least.num_host_blocks, other.num_host_blocks);
  }
  return least;
}

std::optional<error> rank_link::lost() const {
  if (auto why = group_->failure())
    return why;
  auto why = communicator_.failure();
  if (why)
    group_->abort(*why);
  return why;
}

result<void> rank_link::wait_for(const event& mark, clock::time_point begin) {
  for (std::uint32_t round = 0; !passed(mark); ++round) {
    std::this_thread::yield();
    if (round % 64 != 0)
      continue;
    if (auto why = lost())
      return fail(std::move(*why));
    if (!overdue(begin))
      continue;
    error late{errc::timed_out, fmt::format("{} waited {} ms for the GPUs of the other ranks",
                                            group_->name_of(group_->rank()), limit_.count())};
    group_->abort(late);
    return fail(std::move(late));
  }
  return wait(mark);
}

bool rank_link::drains(stream_ref all) {
  return !lost() && record(drained_, all) && wait_for(drained_, clock::now());
}

void rank_link::abort(const error& why) { group_->abort_for_me(why); }

} // namespace troupe::engine::cuda
