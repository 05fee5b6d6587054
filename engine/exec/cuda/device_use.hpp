#pragma once

#include "troupe/base/error.hpp"

/// Who uses the GPUs of this process. What a kernel does wrong spoils the context that all of a
/// process share on a device: from then on every call there fails, whoever makes it, until the
/// context is made anew.
namespace troupe::engine::cuda {

/// A use of a device. As long as there is one, its context is not made anew.
class device_use {
public:
  device_use() noexcept = default;
  explicit device_use(int index);
  device_use(device_use&& other) noexcept;
  device_use& operator=(device_use&& other) noexcept;
  device_use(const device_use&) = delete;
  device_use& operator=(const device_use&) = delete;
  ~device_use();

private:
  int index_ = -1;
};

/// Behind an error: asks the device whether its context is spoiled, and remembers it. Waits for
/// nothing.
void look_for_spoil(int index);
/// Whether it was found spoiled and has not been made anew. Asks the device nothing.
[[nodiscard]] bool is_spoiled(int index) noexcept;
/// Makes the context of a device anew if it is spoiled.
/// @errors busy: somebody uses the device; internal: it is as before, and this process must end
[[nodiscard]] result<void> renew(int index);

} // namespace troupe::engine::cuda
