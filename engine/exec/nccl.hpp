#pragma once

#include "engine/exec/collective.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

struct CUstream_st;

/// NVIDIA's NCCL: how ranks on GPUs add and gather on the devices themselves. The library is opened
/// when a replica has several ranks, so that one GPU needs none. Known here by the part of its C
/// interface that has been stable since its second version.
namespace troupe::engine {

struct nccl_functions;

/// The numbers that NCCL gives the types.
enum class nccl_type : int { f16 = 6, f32 = 7, bf16 = 9 };

/// What a rank's communicator is made from.
struct nccl_place {
  /// The file, or a name for the system's loader.
  std::string library = "libnccl.so.2";
  /// How the ranks introduce themselves, and learn of each other's end.
  std::shared_ptr<collective> group;
  /// What tells this rank's GPU from every other.
  std::array<unsigned char, 16> device{};
  /// Makes that GPU the calling thread's.
  std::function<result<void>()> enter;
  /// How long the ranks may take to connect.
  std::chrono::milliseconds limit{60'000};
};

/// A rank's end of the sums between GPUs. All ranks enqueue the same calls in the same order; each
/// call is ordered on its stream, and may be captured in a CUDA graph. One thread at a time.
class nccl_communicator {
public:
  /// Opens the library, introduces the ranks through the group and connects them.
  /// @errors not_found: there is no NCCL; unsupported: it lacks a function; conflict: two ranks
  ///         have one GPU or other versions; timed_out; internal: what NCCL says; and what the
  ///         group failed with
  [[nodiscard]] static result<nccl_communicator> make(const nccl_place& place);
  /// Opens the library alone: what a load would say first where it cannot be used.
  /// @errors not_found, unsupported: as make()
  [[nodiscard]] static result<void> find(const std::string& library = nccl_place{}.library);

  nccl_communicator(nccl_communicator&& other) noexcept
      : functions_{std::move(other.functions_)}, handle_{std::exchange(other.handle_, nullptr)},
        rank_{other.rank_} {}
  nccl_communicator& operator=(nccl_communicator&& other) noexcept {
    std::swap(functions_, other.functions_);
    std::swap(handle_, other.handle_);
    std::swap(rank_, other.rank_);
    return *this;
  }
  nccl_communicator(const nccl_communicator&) = delete;
  nccl_communicator& operator=(const nccl_communicator&) = delete;
  ~nccl_communicator() { abort(); }

  /// x becomes the sum of every rank's x, the same bits on all ranks.
  /// @async  enqueues on `stream`
  [[nodiscard]] result<void> sum(void* x, std::size_t count, nccl_type type, CUstream_st* stream);
  /// Brings every rank's part into `all` on each, in the order of ranks; a rank's own `count`
  /// elements lie at their place there.
  /// @async  enqueues on `stream`
  [[nodiscard]] result<void> gather(void* all, std::size_t count, nccl_type type,
                                    CUstream_st* stream);
  /// What NCCL has found wrong since.
  [[nodiscard]] std::optional<error> failure() const;
  /// Ends what is enqueued, without a result, and the communicator. Graphs that hold its calls have
  /// to be destroyed before.
  void abort() noexcept;

private:
  nccl_communicator(std::shared_ptr<const nccl_functions> functions, void* handle, std::size_t rank)
      : functions_{std::move(functions)}, handle_{handle}, rank_{rank} {}

  [[nodiscard]] result<void> judge(int status, const char* what) const;

  std::shared_ptr<const nccl_functions> functions_;
  void* handle_ = nullptr;
  std::size_t rank_ = 0;
};

} // namespace troupe::engine
