// Test support: an NCCL whose devices are threads of this process and whose streams do their work
// at once. What nccl.test.cpp opens.
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

namespace {

struct unique_id {
  char internal[128];
};

constexpr int success = 0;
constexpr int system_error = 2;
constexpr int invalid_usage = 5;
constexpr int remote_error = 6;

/// The calling thread's.
thread_local int device = 0;

struct room {
  int ranks = 0;
  int met = 0;
  int given = 0;
  int taken = 0;
  bool aborted = false;
  std::set<int> devices;
  std::vector<const void*> parts;
  std::mutex mutex;
  std::condition_variable changed;
};

struct communicator {
  std::shared_ptr<room> in;
  int rank = 0;
};

std::mutex rooms_mutex;
std::map<int, std::shared_ptr<room>> rooms;
int last_room = 0;

/// Calls `use` with every rank's `mine` once all have come.
template <class Use>
int exchange(communicator& c, const void* mine, Use use) {
  room& r = *c.in;
  std::unique_lock lock{r.mutex};
  r.parts[static_cast<std::size_t>(c.rank)] = mine;
  const int round = r.given++ / r.ranks;
  r.changed.notify_all();
  r.changed.wait(lock, [&] { return r.aborted || r.given == (round + 1) * r.ranks; });
  if (r.aborted)
    return remote_error;
  use(r);
  ++r.taken;
  r.changed.notify_all();
  r.changed.wait(lock, [&] { return r.aborted || r.taken >= (round + 1) * r.ranks; });
  return success;
}

} // namespace

// NCCL begins its collectives with these.
#define TROUPE_PART const void *from, void *to, std::size_t count

extern "C" {

/// What cudaSetDevice would be.
void test_nccl_use_device(int number) { device = number; }

int ncclGetVersion(int* version) {
  *version = 29999;
  return success;
}

int ncclGetUniqueId(unique_id* id) {
  const std::lock_guard lock{rooms_mutex};
  *id = {};
  ++last_room;
  std::memcpy(id->internal, &last_room, sizeof(last_room));
  return success;
}

int ncclCommInitRank(void** handle, int ranks, unique_id id, int rank) {
  int number = 0;
  std::memcpy(&number, id.internal, sizeof(number));
  std::unique_lock all{rooms_mutex};
  auto& mine = rooms[number];
  if (!mine)
    mine = std::make_shared<room>();
  const auto in = mine;
  all.unlock();
  std::unique_lock lock{in->mutex};
  in->ranks = ranks;
  in->parts.resize(static_cast<std::size_t>(ranks));
  in->devices.insert(device);
  ++in->met;
  in->changed.notify_all();
  // NCCL itself would wait for ever.
  if (!in->changed.wait_for(lock, std::chrono::seconds{2}, [&] { return in->met == ranks; }))
    return system_error;
  if (in->devices.size() < in->parts.size())
    return invalid_usage;
  *handle = new communicator{in, rank};
  return success;
}

int ncclCommAbort(void* handle) {
  const std::unique_ptr<communicator> c{static_cast<communicator*>(handle)};
  const std::lock_guard lock{c->in->mutex};
  c->in->aborted = true;
  c->in->changed.notify_all();
  return success;
}

int ncclAllReduce(TROUPE_PART, int type, int how, void* handle, void*) {
  auto& c = *static_cast<communicator*>(handle);
  if (type != 7 || how != 0)
    return system_error;
  std::vector<float> sums(count);
  const int status = exchange(c, from, [&](const room& r) {
    for (const void* part : r.parts)
      for (std::size_t i = 0; i < count; ++i)
        sums[i] += static_cast<const float*>(part)[i];
  });
  std::memcpy(to, sums.data(), count * sizeof(float));
  return status;
}

int ncclAllGather(TROUPE_PART, int type, void* handle, void*) {
  auto& c = *static_cast<communicator*>(handle);
  const std::size_t bytes = count * (type == 7 ? 4 : 2);
  std::vector<char> all(bytes * static_cast<std::size_t>(c.in->ranks));
  const int status = exchange(c, from, [&](const room& r) {
    for (std::size_t i = 0; i < r.parts.size(); ++i)
      std::memcpy(all.data() + i * bytes, r.parts[i], bytes);
  });
  std::memcpy(to, all.data(), all.size());
  return status;
}

int ncclCommGetAsyncError(void* handle, int* status) {
  auto& c = *static_cast<communicator*>(handle);
  const std::lock_guard lock{c.in->mutex};
  *status = c.in->aborted ? remote_error : success;
  return success;
}

const char* ncclGetErrorString(int status) {
  return status == system_error ? "unhandled system error" : "remote process exited";
}
}
