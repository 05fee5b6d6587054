#pragma once

#include "troupe/base/error.hpp"

/// Who uses the GPUs of this process. What a kernel does wrong spoils the context that all of a
/// process share on a device: from then on every call there fails, whoever makes it, and no call
/// makes a context anew that works (tried with driver 580: resetting the device, primary contexts
/// and others). Another process can use the device.
namespace troupe::engine::cuda {

/// A use of a device. As long as there is one, its memory is not given back.
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
/// Whether it was found spoiled. Asks the device nothing.
[[nodiscard]] bool is_spoiled(int index) noexcept;
/// Whether this process may begin to use a device. Gives back what it had of a spoiled one.
/// @errors busy: an error has spoiled it, and somebody uses it still; internal: it is lost to this
///         process
[[nodiscard]] result<void> look_whether_usable(int index);
/// Whether a device is spoiled and nobody uses it any more: it is lost to this process, and free
/// for another.
[[nodiscard]] bool is_lost(int index) noexcept;

} // namespace troupe::engine::cuda
