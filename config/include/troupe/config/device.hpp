#pragma once

#include <cstdint>
#include <string>

namespace troupe::config {

enum class device_kind : std::uint8_t { cpu, cuda };

/// "cpu" or "cuda:<index>".
struct device {
  device_kind kind = device_kind::cpu;
  std::uint32_t index = 0;
  friend bool operator==(const device&, const device&) = default;
};

[[nodiscard]] std::string to_string(const device& d);

} // namespace troupe::config
