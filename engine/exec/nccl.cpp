#include "engine/exec/nccl.hpp"

#include <fmt/format.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include <dlfcn.h>

namespace troupe::engine {

namespace {

/// ncclUniqueId: how ranks find each other.
struct unique_id {
  std::array<char, 128> internal;
};

constexpr int success = 0;
constexpr int invalid_usage = 5;
constexpr int in_progress = 7;
/// ncclSum.
constexpr int addition = 0;

} // namespace

struct nccl_functions {
  int (*version)(int* version) = nullptr;
  int (*make_id)(unique_id* id) = nullptr;
  int (*connect)(void** handle, int ranks, unique_id id, int rank) = nullptr;
  int (*abort)(void* handle) = nullptr;
  int (*all_reduce)(const void* from, void* to, std::size_t count, int type, int how, void* handle,
                    CUstream_st* stream) = nullptr;
  int (*all_gather)(const void* from, void* to, std::size_t count, int type, void* handle,
                    CUstream_st* stream) = nullptr;
  int (*async_error)(void* handle, int* status) = nullptr;
  const char* (*words)(int status) = nullptr;
};

namespace {

using functions_ptr = std::shared_ptr<const nccl_functions>;

/// NCCL reads these when it is first used in a process.
void prepare_environment() {
  static std::mutex one_at_a_time;
  const std::lock_guard lock{one_at_a_time};
  // Multicast over NVLink takes memory that a container may not have, for sums as large as ours at
  // no gain.
  ::setenv("NCCL_NVLS_ENABLE", "0", 1);
  // Whatever is needed is connected while a deadline watches, not in the first step.
  ::setenv("NCCL_RUNTIME_CONNECT", "0", 0);
}

template <class Function>
void find(void* library, const char* name, Function& to, std::string& missing) {
  to = reinterpret_cast<Function>(dlsym(library, name));
  if (to == nullptr)
    missing += fmt::format("{}{}", missing.empty() ? "" : ", ", name);
}

result<functions_ptr> open(const std::string& file) {
  prepare_environment();
  // It stays open: threads of NCCL run in it.
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = dlerror();
    return fail(errc::not_found,
                fmt::format("a replica over several GPUs needs NVIDIA's NCCL, and {} cannot be "
                            "opened ({}); install it (apt: libnccl2, pip: nvidia-nccl-cu13) and "
                            "name its folder in LD_LIBRARY_PATH, or write "
                            "\"tensor_parallel_size\": 1",
                            file, reason == nullptr ? "no reason given" : reason));
  }
  auto found = std::make_shared<nccl_functions>();
  std::string missing;
  find(library, "ncclGetVersion", found->version, missing);
  find(library, "ncclGetUniqueId", found->make_id, missing);
  find(library, "ncclCommInitRank", found->connect, missing);
  find(library, "ncclCommAbort", found->abort, missing);
  find(library, "ncclAllReduce", found->all_reduce, missing);
  find(library, "ncclAllGather", found->all_gather, missing);
  find(library, "ncclCommGetAsyncError", found->async_error, missing);
  find(library, "ncclGetErrorString", found->words, missing);
  if (!missing.empty())
    return fail(errc::unsupported,
                fmt::format("{} has no {}; it is not NCCL 2.10 or newer", file, missing));
  return found;
}

constexpr std::string_view to_say_more = "NCCL_DEBUG=INFO in the environment makes it say more";

/// What every rank tells the others.
struct introduction {
  unique_id id{};
  std::array<unsigned char, 16> device{};
  int version = 0;
};

/// Who all are, each at its rank.
result<std::vector<introduction>> introduce(const nccl_place& place, const nccl_functions& nccl) {
  const std::uint32_t rank = place.group->rank();
  introduction mine{.device = place.device};
  if (const int status = nccl.version(&mine.version); status != success)
    return fail(errc::internal, fmt::format("asking NCCL for its version: {}", nccl.words(status)));
  if (rank == 0)
    if (const int status = nccl.make_id(&mine.id); status != success)
      return fail(errc::internal, fmt::format("beginning a group of NCCL: {}", nccl.words(status)));
  std::vector<introduction> all(place.group->ranks());
  // One rank may open its device much later than another.
  if (auto met = place.group->all_gather({.mine = std::as_bytes(std::span{&mine, 1}),
                                          .all = std::as_writable_bytes(std::span{all}),
                                          .tag = 0,
                                          .limit = std::chrono::hours{1}});
      !met)
    return fail(met.error());
  for (std::uint32_t i = 0; i < all.size(); ++i)
    if (all[i].version != mine.version)
      return fail(errc::conflict,
                  fmt::format("{} has NCCL {} and {} has {}; install the same version on both",
                              place.group->name_of(i), all[i].version, place.group->name_of(rank),
                              mine.version));
  return all;
}

/// Why NCCL refuses ranks of one GPU. It alone decides: processes that have an NCCL_HOSTID each are
/// machines to it, and their ranks may share one.
std::optional<error> same_device(const collective& group, std::span<const introduction> all) {
  for (std::uint32_t i = 0; i < all.size(); ++i)
    for (std::uint32_t j = 0; j < i; ++j)
      if (all[j].device == all[i].device)
        return error{errc::conflict,
                     fmt::format("{} and {} are given the same GPU; name as many GPUs in "
                                 "\"devices\" as tensor_parallel_size says ({})",
                                 group.name_of(j), group.name_of(i), all.size())};
  return std::nullopt;
}

/// A connecting that goes on in a thread of its own: NCCL gives none of its calls a limit, and one
/// that waits for a rank that has died cannot be taken back. Whoever waits leaves it behind then.
struct connecting {
  std::mutex mutex;
  std::condition_variable changed;
  bool left = false;
  std::optional<result<void*>> outcome;
};

result<void*> connect(const nccl_place& place, const nccl_functions& nccl,
                      std::span<const introduction> all) {
  if (auto entered = place.enter ? place.enter() : result<void>{}; !entered)
    return fail(entered.error());
  void* handle = nullptr;
  const int status = nccl.connect(&handle, static_cast<int>(all.size()), all.front().id,
                                  static_cast<int>(place.group->rank()));
  if (status == invalid_usage)
    if (auto same = same_device(*place.group, all))
      return fail(std::move(*same));
  if (status != success)
    return fail(errc::internal, fmt::format("NCCL cannot connect the ranks: {}; {}",
                                            nccl.words(status), to_say_more));
  return handle;
}

void run_connecting(const std::shared_ptr<connecting>& shared, const nccl_place& place,
                    const functions_ptr& nccl, std::span<const introduction> all) {
  auto made = connect(place, *nccl, all);
  std::unique_lock lock{shared->mutex};
  if (!shared->left) {
    shared->outcome = std::move(made);
    shared->changed.notify_all();
    return;
  }
  lock.unlock();
  if (made)
    nccl->abort(*made);
}

result<void*> connect_within_limit(const nccl_place& place, const functions_ptr& nccl,
                                   const std::vector<introduction>& all) {
  auto shared = std::make_shared<connecting>();
  std::thread{[shared, place, nccl, all] { run_connecting(shared, place, nccl, all); }}.detach();
  const auto end = std::chrono::steady_clock::now() + place.limit;
  std::unique_lock lock{shared->mutex};
  for (;;) {
    if (shared->changed.wait_for(lock, std::chrono::milliseconds{10},
                                 [&] { return shared->outcome.has_value(); }))
      return std::move(*shared->outcome);
    auto lost = place.group->failure();
    if (!lost && std::chrono::steady_clock::now() > end)
      lost =
          error{errc::timed_out,
                fmt::format("the ranks did not connect through NCCL within {} s; between machines "
                            "it needs every TCP port, and NCCL_SOCKET_IFNAME where it takes "
                            "another network; {}",
                            std::chrono::duration<double>(place.limit).count(), to_say_more)};
    if (!lost)
      continue;
    shared->left = true;
    return fail(std::move(*lost));
  }
}

std::size_t size_of(nccl_type type) { return type == nccl_type::f32 ? 4 : 2; }

} // namespace

result<nccl_communicator> nccl_communicator::make(const nccl_place& place) {
  auto nccl = open(place.library);
  if (!nccl)
    return fail(nccl.error());
  const auto all = introduce(place, **nccl);
  if (!all)
    return fail(all.error());
  const auto handle = connect_within_limit(place, *nccl, *all);
  if (!handle)
    return fail(handle.error());
  return nccl_communicator{std::move(*nccl), *handle, place.group->rank()};
}

result<void> nccl_communicator::find(const std::string& library) {
  if (const auto nccl = open(library); !nccl)
    return fail(nccl.error());
  return {};
}

result<void> nccl_communicator::judge(int status, const char* what) const {
  if (status == success)
    return {};
  return fail(errc::internal,
              fmt::format("{} between the ranks: {}", what, functions_->words(status)));
}

result<void> nccl_communicator::sum(void* x, std::size_t count, nccl_type type,
                                    CUstream_st* stream) {
  if (handle_ == nullptr)
    return fail(errc::peer_down, "the communicator of the ranks was aborted");
  return judge(
      functions_->all_reduce(x, x, count, static_cast<int>(type), addition, handle_, stream),
      "a sum");
}

result<void> nccl_communicator::gather(void* all, std::size_t count, nccl_type type,
                                       CUstream_st* stream) {
  if (handle_ == nullptr)
    return fail(errc::peer_down, "the communicator of the ranks was aborted");
  const auto* const mine = static_cast<const std::byte*>(all) + rank_ * count * size_of(type);
  return judge(functions_->all_gather(mine, all, count, static_cast<int>(type), handle_, stream),
               "a gathering");
}

std::optional<error> nccl_communicator::failure() const {
  int status = success;
  if (handle_ == nullptr || functions_->async_error(handle_, &status) != success ||
      status == success || status == in_progress)
    return std::nullopt;
  return error{errc::peer_down,
               fmt::format("NCCL lost the other ranks: {}", functions_->words(status))};
}

void nccl_communicator::abort() noexcept {
  if (void* const handle = std::exchange(handle_, nullptr))
    functions_->abort(handle);
}

} // namespace troupe::engine
