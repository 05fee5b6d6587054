#include "engine/exec/machine.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

#include <sched.h>

namespace troupe::engine {

namespace {

constexpr std::uint64_t unlimited = std::numeric_limits<std::uint64_t>::max();

/// The number that a file of the control group holds; `unlimited` for "max" or no such file.
std::uint64_t group_number(const char* path) {
  std::ifstream file{path};
  std::uint64_t number = 0;
  return file >> number ? number : unlimited;
}

std::uint64_t machine_available() {
  std::ifstream file{"/proc/meminfo"};
  std::string key;
  std::uint64_t kib = 0;
  std::string rest;
  while (file >> key >> kib && std::getline(file, rest))
    if (key == "MemAvailable:")
      return kib * 1024;
  return unlimited;
}

} // namespace

std::uint64_t available_memory_bytes() {
  const std::uint64_t limit = group_number("/sys/fs/cgroup/memory.max");
  const std::uint64_t used = group_number("/sys/fs/cgroup/memory.current");
  std::uint64_t available = machine_available();
  if (limit != unlimited && used != unlimited)
    available = std::min(available, limit > used ? limit - used : 0);
  return available == unlimited ? 0 : available;
}

std::uint64_t swap_bytes_within(std::uint64_t asked, std::uint32_t ranks,
                                std::uint64_t available) noexcept {
  return available == 0 ? asked : std::min(asked, available / 2 / ranks);
}

unsigned usable_cores() noexcept {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (::sched_getaffinity(0, sizeof cores, &cores) == 0)
    return static_cast<unsigned>(std::max(1, CPU_COUNT(&cores)));
  return std::max(1U, std::thread::hardware_concurrency());
}

} // namespace troupe::engine
