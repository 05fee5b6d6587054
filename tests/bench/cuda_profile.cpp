// Where a process spends the GPU's time, without a profiler on the machine: CUDA loads this library
// into any program (CUDA_INJECTION64_PATH), and it asks CUPTI for every kernel, copies and slow
// calls. At the end it prints, for each CUDA graph that was replayed often and for the last kernels
// outside of graphs, what each kind of kernel took, what passed between the kernel before it and
// its begin, and, for kernels begin before those in front end, between the two ends. The same of
// what stands between two replays of a graph, on the way from the end of a step to the next one.
//   g++ -O2 -std=c++20 -shared -fPIC -I/usr/local/cuda/include cuda_profile.cpp -o profile.so
#include <cupti.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct span {
  std::uint64_t begin;
  std::uint64_t end;
  std::string name;
  std::uint32_t graph = 0;
};

std::mutex guard;
std::map<std::uint32_t, std::vector<span>> by_graph;
/// By kind of call, of the runtime or of the driver beneath it, and number: how many, milliseconds.
std::map<std::pair<CUpti_ActivityKind, std::uint32_t>, std::pair<int, double>> slow_calls;

decltype(&cuptiActivityGetNextRecord) next_record;
decltype(&cuptiActivityFlushAll) flush_all;
decltype(&cuptiGetCallbackName) callback_name;

void give_buffer(std::uint8_t** buffer, std::size_t* size, std::size_t* records) {
  *size = std::size_t{8} << 20U;
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(8, *size));
  *records = 0;
}

void take_buffer(CUcontext, std::uint32_t, std::uint8_t* buffer, std::size_t, std::size_t valid) {
  const std::lock_guard lock{guard};
  CUpti_Activity* record = nullptr;
  while (next_record(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
      const auto* const kernel = reinterpret_cast<const CUpti_ActivityKernel10*>(record);
      by_graph[kernel->graphId].push_back(
          {kernel->start, kernel->end, kernel->name, kernel->graphId});
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      const auto* const copy = reinterpret_cast<const CUpti_ActivityMemcpy6*>(record);
      by_graph[0].push_back({copy->start, copy->end, "a copy by the driver"});
    } else {
      const auto* const call = reinterpret_cast<const CUpti_ActivityAPI*>(record);
      if (call->end - call->start > 1000000) {
        auto& [count, ms] = slow_calls[{call->kind, call->cbid}];
        ++count;
        ms += static_cast<double>(call->end - call->start) / 1e6;
      }
    }
  }
  std::free(buffer);
}

struct kind {
  int count = 0;
  double took = 0;
  double gap = 0;

  void take(const span& one, const span& before) {
    const double passed = (static_cast<double>(one.begin) - static_cast<double>(before.end)) / 1e3;
    ++count;
    took += static_cast<double>(one.end - one.begin) / 1e3;
    // What is longer is a lack of work.
    if (passed < 200)
      gap += passed;
  }
};
/// By name and what stands in front: products of one kernel differ by that.
using kinds = std::map<std::string, kind>;
std::string name_of(const span& one, const span& before) {
  return one.name.substr(0, 110) + " behind " + before.name.substr(0, 60);
}

void sort_by_begin(std::vector<span>& all) {
  std::sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.begin < b.begin; });
}

void print(const kinds& found, std::size_t most) {
  std::vector<std::pair<std::string, kind>> sorted{found.begin(), found.end()};
  std::sort(sorted.begin(), sorted.end(),
            [](auto& a, auto& b) { return a.second.took > b.second.took; });
  for (std::size_t i = 0; i < std::min(sorted.size(), most); ++i)
    std::printf("profile:   %5d x %8.2f us, %6.2f us before it, %8.2f from end to end: %s\n",
                sorted[i].second.count, sorted[i].second.took / sorted[i].second.count,
                sorted[i].second.gap / sorted[i].second.count,
                (sorted[i].second.took + sorted[i].second.gap) / sorted[i].second.count,
                sorted[i].first.c_str());
}

void print_kinds(std::uint32_t graph, std::vector<span> all) {
  sort_by_begin(all);
  // The last ones: a program warms up first.
  constexpr std::size_t most = 12000;
  if (all.size() > (graph == 0 ? 320 : most))
    all.erase(all.begin(), all.end() - (graph == 0 ? 320 : most));
  kinds found;
  for (std::size_t i = 1; i < all.size(); ++i)
    found[name_of(all[i], all[i - 1])].take(all[i], all[i - 1]);
  double took = 0, between = 0;
  for (const auto& [name, one] : found) {
    took += one.took;
    between += one.gap;
  }
  std::printf("profile: graph %u: %zu kernels, %.0f us in them, %.0f us between\n", graph,
              all.size(), took, between);
  print(found, 14);
}

/// What stands between two replays of a graph, with the first kernel of the second one.
void print_between_replays() {
  std::vector<span> all;
  for (const auto& [graph, some] : by_graph)
    all.insert(all.end(), some.begin(), some.end());
  sort_by_begin(all);
  constexpr std::size_t most = 8;
  std::map<std::uint32_t, kinds> found;
  for (std::size_t i = 0; i < all.size();) {
    std::size_t end = i + 1;
    while (end < all.size() && all[end].graph == 0)
      ++end;
    if (all[i].graph != 0 && end < all.size() && all[end].graph == all[i].graph && end > i + 1 &&
        end - i <= most)
      for (std::size_t at = i + 1; at <= end; ++at)
        found[all[i].graph][name_of(all[at], all[at - 1])].take(all[at], all[at - 1]);
    i = end;
  }
  for (const auto& [graph, some] : found) {
    std::printf("profile: between two replays of graph %u\n", graph);
    print(some, most);
  }
}

void report() {
  flush_all(1);
  const std::lock_guard lock{guard};
  for (auto& [graph, all] : by_graph)
    if (all.size() > 300)
      print_kinds(graph, all);
  print_between_replays();
  for (auto& [call, cost] : slow_calls) {
    const char* name = nullptr;
    callback_name(call.first == CUPTI_ACTIVITY_KIND_DRIVER ? CUPTI_CB_DOMAIN_DRIVER_API
                                                           : CUPTI_CB_DOMAIN_RUNTIME_API,
                  call.second, &name);
    std::printf("profile: %d calls of %s of more than 1 ms: %.1f ms\n", cost.first,
                name == nullptr ? "?" : name, cost.second);
  }
}

template <class F>
F symbol(void* library, const char* name, F) {
  return reinterpret_cast<F>(dlsym(library, name));
}

} // namespace

extern "C" int InitializeInjection() {
  void* library = dlopen("libcupti.so.13", RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    std::printf("profile: %s\n", dlerror());
    return 1;
  }
  next_record = symbol(library, "cuptiActivityGetNextRecord", next_record);
  flush_all = symbol(library, "cuptiActivityFlushAll", flush_all);
  callback_name = symbol(library, "cuptiGetCallbackName", callback_name);
  const auto enable = symbol(library, "cuptiActivityEnable", &cuptiActivityEnable);
  const auto listen =
      symbol(library, "cuptiActivityRegisterCallbacks", &cuptiActivityRegisterCallbacks);
  if (enable == nullptr || listen == nullptr || listen(give_buffer, take_buffer) != CUPTI_SUCCESS)
    return 1;
  enable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
  enable(CUPTI_ACTIVITY_KIND_MEMCPY);
  enable(CUPTI_ACTIVITY_KIND_RUNTIME);
  enable(CUPTI_ACTIVITY_KIND_DRIVER);
  std::atexit(report);
  return 1;
}
