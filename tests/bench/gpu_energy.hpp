#pragma once

#include <fmt/core.h>

#include <dlfcn.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace troupe::bench {

/// What a GPU used between two moments.
struct energy_used {
  double seconds = 0;
  double joules = 0;
  /// Of the multiprocessors, when the measure ended under load.
  unsigned mhz = 0;

  [[nodiscard]] double watts() const { return joules / seconds; }
};

/// Reads the energy that a GPU has used and the clock that it has, by the driver's NVML, which is
/// opened by name. The counter moves some ten times a second: measure for a second or more. Changes
/// nothing on the card.
class energy_meter {
public:
  /// @return nothing where there is no NVML, or no such GPU, or it counts no energy
  [[nodiscard]] static std::optional<energy_meter> open(unsigned gpu) {
    void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (library == nullptr)
      return {};
    energy_meter made;
    const auto bind = [&]<class F>(F*& to, const char* name) {
      to = reinterpret_cast<F*>(dlsym(library, name));
      return to != nullptr;
    };
    status (*init)() = nullptr;
    status (*find)(unsigned, device*) = nullptr;
    if (!bind(init, "nvmlInit_v2") || !bind(find, "nvmlDeviceGetHandleByIndex_v2") ||
        !bind(made.energy_, "nvmlDeviceGetTotalEnergyConsumption") ||
        !bind(made.clock_, "nvmlDeviceGetClockInfo") ||
        !bind(made.limit_, "nvmlDeviceGetEnforcedPowerLimit"))
      return {};
    std::uint64_t first = 0;
    if (init() != 0 || find(gpu, &made.device_) != 0 || made.energy_(made.device_, &first) != 0)
      return {};
    return made;
  }

  void begin() {
    begun_ = std::chrono::steady_clock::now();
    energy_(device_, &before_);
  }
  /// @pre the GPU has just ended what is measured, or still works on more of it
  [[nodiscard]] energy_used end() const {
    energy_used out;
    std::uint64_t now = 0;
    constexpr int multiprocessors = 1;
    clock_(device_, multiprocessors, &out.mhz);
    energy_(device_, &now);
    out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun_).count();
    out.joules = static_cast<double>(now - before_) / 1e3;
    return out;
  }
  /// What the card may draw, in watts.
  [[nodiscard]] double limit() const {
    unsigned milliwatts = 0;
    limit_(device_, &milliwatts);
    return milliwatts / 1e3;
  }

private:
  // NVML's types, which are the same in every version.
  using status = int;
  using device = void*;

  device device_ = nullptr;
  status (*energy_)(device, std::uint64_t* millijoules) = nullptr;
  status (*clock_)(device, int kind, unsigned* mhz) = nullptr;
  status (*limit_)(device, unsigned* milliwatts) = nullptr;
  std::chrono::steady_clock::time_point begun_;
  std::uint64_t before_ = 0;
};

} // namespace troupe::bench
