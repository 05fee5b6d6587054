// Loaded before the program: writes down when a sleep of a simulated step's length ends, which is
// when the engine has its token. The program itself stays as it is.

#include "tests/bench/stage_clock.hpp"
#include "tests/bench/stage_parts.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <string>

namespace {

stage::clock_page* page() {
  static auto* const mapped = [] {
    const auto name = stage::clock_prefix + std::to_string(getppid());
    const int file = shm_open(name.c_str(), O_RDWR, 0);
    if (file < 0)
      return static_cast<stage::clock_page*>(nullptr);
    void* at =
        mmap(nullptr, sizeof(stage::clock_page), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return at == MAP_FAILED ? nullptr : static_cast<stage::clock_page*>(at);
  }();
  return mapped;
}

} // namespace

extern "C" int nanosleep(const timespec* wanted, timespec* rest) {
  using function = int (*)(const timespec*, timespec*);
  static const auto real = reinterpret_cast<function>(dlsym(RTLD_NEXT, "nanosleep"));
  const int status = real(wanted, rest);
  if (wanted->tv_sec != 0 || wanted->tv_nsec != stage::step_ns || page() == nullptr)
    return status;
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const auto place = page()->count.load() % stage::clock_page::places;
  page()->at_ns[place] = std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  ++page()->count;
  return status;
}
