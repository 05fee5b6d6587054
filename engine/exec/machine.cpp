#include "engine/exec/machine.hpp"

#include <algorithm>
#include <charconv>
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

std::vector<unsigned> cores_in(std::string_view list) {
  std::vector<unsigned> cores;
  const char* at = list.data();
  const char* const end = at + list.size();
  const auto read = [&](unsigned& number) {
    const auto [next, code] = std::from_chars(at, end, number);
    at = next;
    return code == std::errc{} && number < CPU_SETSIZE;
  };
  while (at != end && *at != '\n') {
    unsigned first = 0;
    if (!cores.empty() && *at++ != ',')
      return {};
    if (!read(first))
      return {};
    unsigned last = first;
    if (at != end && *at == '-' && (++at, !read(last) || last < first))
      return {};
    for (unsigned core = first; core <= last; ++core)
      cores.push_back(core);
  }
  return cores;
}

unsigned stay_on(std::span<const unsigned> cores) noexcept {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0)
    return 0;
  cpu_set_t wanted;
  CPU_ZERO(&wanted);
  for (const unsigned core : cores)
    if (core < CPU_SETSIZE && CPU_ISSET(core, &allowed))
      CPU_SET(core, &wanted);
  const int count = CPU_COUNT(&wanted);
  if (count == 0 || ::sched_setaffinity(0, sizeof wanted, &wanted) != 0)
    return 0;
  return static_cast<unsigned>(count);
}

} // namespace troupe::engine
