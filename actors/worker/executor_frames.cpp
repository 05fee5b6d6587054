#include "actors/worker/executor_frames.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace troupe::actors {

namespace {

/// Length of word and bytes, and the word.
using frame_head = std::array<char, sizeof(std::uint32_t) + 1>;

template <class To, class From>
To optional_of(const From& from) {
  To made;
  if (from)
    made = *from;
  return made;
}

} // namespace

executor_order order_of(const engine::executor_options& options) {
  // All of them by name, so that a new one cannot be forgotten here.
  const auto& [model_dir, dtype, kv_cache_dtype, load_format, seed, block_size, max_model_len,
               max_num_seqs, max_num_batched_tokens, step_target, kv_cache_bytes, num_blocks,
               swap_bytes, gpu_memory_utilization, deterministic, threads, rank, ranks, group,
               exchange_limit, cache_dir, tenure] = options;
  static_cast<void>(tenure);
  executor_order made{
      .model_dir = model_dir.string(),
      .dtype = dtype,
      .kv_cache_dtype = kv_cache_dtype,
      .load_format = load_format,
      .seed = seed,
      .block_size = block_size,
      .max_model_len = max_model_len,
      .max_num_seqs = max_num_seqs,
      .max_num_batched_tokens = optional_of<caf::optional<std::uint32_t>>(max_num_batched_tokens),
      .step_target = step_target,
      .kv_cache_bytes = optional_of<caf::optional<std::uint64_t>>(kv_cache_bytes),
      .num_blocks = optional_of<caf::optional<std::uint32_t>>(num_blocks),
      .swap_bytes = swap_bytes,
      .gpu_memory_utilization = gpu_memory_utilization,
      .deterministic = deterministic,
      .threads = threads,
      .rank = rank,
      .names = {},
      .exchange_limit = exchange_limit,
      .cache_dir = cache_dir.string(),
  };
  for (std::uint32_t i = 0; group && i < ranks; ++i)
    made.names.push_back(group->name_of(i));
  return made;
}

engine::executor_options options_in(const executor_order& order) {
  return {
      .model_dir = order.model_dir,
      .dtype = order.dtype,
      .kv_cache_dtype = order.kv_cache_dtype,
      .load_format = order.load_format,
      .seed = order.seed,
      .block_size = order.block_size,
      .max_model_len = order.max_model_len,
      .max_num_seqs = order.max_num_seqs,
      .max_num_batched_tokens =
          optional_of<std::optional<std::uint32_t>>(order.max_num_batched_tokens),
      .step_target = order.step_target,
      .kv_cache_bytes = optional_of<std::optional<std::uint64_t>>(order.kv_cache_bytes),
      .num_blocks = optional_of<std::optional<std::uint32_t>>(order.num_blocks),
      .swap_bytes = order.swap_bytes,
      .gpu_memory_utilization = order.gpu_memory_utilization,
      .deterministic = order.deterministic,
      .threads = order.threads,
      .rank = order.rank,
      .ranks = order.names.empty() ? 1 : static_cast<std::uint32_t>(order.names.size()),
      .exchange_limit = order.exchange_limit,
      .cache_dir = order.cache_dir,
  };
}

executor_failure failure_of(const error& why, bool spoiled) {
  return {why.code, why.note, spoiled};
}

error error_in(const executor_failure& failure) {
  return {std::min(failure.code, errc::internal), failure.note};
}

frame_socket::~frame_socket() { ::close(fd_); }

bool frame_socket::send(const executor_frame& frame) {
  const auto length = static_cast<std::uint32_t>(frame.bytes.size() + 1);
  std::vector<char> all(sizeof(frame_head) + frame.bytes.size());
  std::memcpy(all.data(), &length, sizeof length);
  all[sizeof length] = static_cast<char>(frame.word);
  std::copy(frame.bytes.begin(), frame.bytes.end(), all.begin() + sizeof(frame_head));
  const std::lock_guard lock{sending_};
  for (std::size_t sent = 0; sent < all.size();) {
    const auto n = ::send(fd_, all.data() + sent, all.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    sent += static_cast<std::size_t>(n);
  }
  return true;
}

bool frame_socket::fill() {
  piece_.resize(std::size_t{64} << 10U);
  inbox_.erase(inbox_.begin(), inbox_.begin() + static_cast<std::ptrdiff_t>(taken_));
  taken_ = 0;
  while (true) {
    const auto n = ::recv(fd_, piece_.data(), piece_.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 && errno == EAGAIN;
    inbox_.insert(inbox_.end(), piece_.begin(), piece_.begin() + n);
  }
}

std::optional<executor_frame> frame_socket::next() {
  const char* const at = inbox_.data() + taken_;
  const std::size_t there = inbox_.size() - taken_;
  std::uint32_t length = 0;
  if (there < sizeof(frame_head))
    return std::nullopt;
  std::memcpy(&length, at, sizeof length);
  if (length == 0 || there - sizeof length < length)
    return std::nullopt;
  taken_ += sizeof length + length;
  return executor_frame{.word = static_cast<executor_word>(at[sizeof length]),
                        .bytes = {at + sizeof(frame_head), at + sizeof length + length}};
}

} // namespace troupe::actors
