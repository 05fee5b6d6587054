#pragma once

#include "actors/protocol.hpp"
#include "engine/exec/collective.hpp"

#include <caf/binary_deserializer.hpp>
#include <caf/binary_serializer.hpp>
#include <caf/optional.hpp>

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

/// What passes between a process_executor and the process that has the executor: each frame is a
/// word and what belongs to it, in CAF's serialisation, behind its length.
namespace troupe::actors {

enum class executor_word : std::uint8_t {
  // Orders, each with one answer or failure.
  make,
  foresee,
  load,
  prepare,
  launch,
  sample,
  reset,
  // To the child, without an answer.
  exchanged,
  lost,
  // From the child.
  answer,
  failure,
  progress,
  step_done,
  exchange,
  abort,
};

struct executor_frame {
  executor_word word{};
  std::vector<char> bytes;
};

/// executor_options, but for what belongs to a process alone.
struct executor_order {
  std::string model_dir;
  std::string dtype;
  std::string kv_cache_dtype;
  std::string load_format;
  std::uint64_t seed = 0;
  std::uint32_t block_size = 0;
  std::uint32_t max_model_len = 0;
  std::uint32_t max_num_seqs = 0;
  caf::optional<std::uint32_t> max_num_batched_tokens;
  std::chrono::milliseconds step_target{};
  caf::optional<std::uint64_t> kv_cache_bytes;
  caf::optional<std::uint32_t> num_blocks;
  std::uint64_t swap_bytes = 0;
  double gpu_memory_utilization = 0;
  bool deterministic = false;
  std::uint32_t threads = 0;
  std::uint32_t rank = 0;
  /// What to call each rank; empty for one rank.
  std::vector<std::string> names;
  std::chrono::milliseconds exchange_limit{};
  std::string cache_dir;
};
TROUPE_INSPECT(executor_order, model_dir, dtype, kv_cache_dtype, load_format, seed, block_size,
               max_model_len, max_num_seqs, max_num_batched_tokens, step_target, kv_cache_bytes,
               num_blocks, swap_bytes, gpu_memory_utilization, deterministic, threads, rank, names,
               exchange_limit, cache_dir)

[[nodiscard]] executor_order order_of(const engine::executor_options& options);
/// Without a group.
[[nodiscard]] engine::executor_options options_in(const executor_order& order);

/// An error, and whether the executor is spoiled since.
struct executor_failure {
  errc code = errc::none;
  std::string note;
  bool spoiled = false;
};
TROUPE_INSPECT(executor_failure, code, note, spoiled)

[[nodiscard]] executor_failure failure_of(const error& why, bool spoiled = false);
[[nodiscard]] error error_in(const executor_failure& failure);

template <class... Ts>
[[nodiscard]] executor_frame frame_of(executor_word word, Ts... xs) {
  executor_frame made{.word = word, .bytes = {}};
  if constexpr (sizeof...(xs) > 0) {
    caf::binary_serializer sink{nullptr, made.bytes};
    // Memory grows or throws: nothing else can fail here.
    static_cast<void>(sink(xs...));
  }
  return made;
}

/// @errors corrupt_data
template <class... Ts>
[[nodiscard]] result<void> read(const executor_frame& frame, Ts&... xs) {
  caf::binary_deserializer source{nullptr, frame.bytes.data(), frame.bytes.size()};
  if (source(xs...))
    return fail(errc::corrupt_data, "what came between a process and its executor is no message");
  return {};
}

/// One end of the way between the two. Any thread sends; one takes.
class frame_socket {
public:
  explicit frame_socket(int fd) noexcept : fd_{fd} {}
  ~frame_socket();
  frame_socket(const frame_socket&) = delete;
  frame_socket& operator=(const frame_socket&) = delete;

  [[nodiscard]] int fd() const noexcept { return fd_; }
  /// Waits for room. @return whether the other end is there
  bool send(const executor_frame& frame);
  /// Takes in what has come, without waiting. @return whether the other end is there
  [[nodiscard]] bool fill();
  /// The next frame that has come whole.
  [[nodiscard]] std::optional<executor_frame> next();

private:
  int fd_;
  std::mutex sending_;
  std::vector<char> piece_;
  std::vector<char> inbox_;
  std::size_t taken_ = 0;
};

} // namespace troupe::actors
