#pragma once

#include <cstddef>

namespace troupe::engine {

/// Lets a process outlive a file that is cut short while it is mapped.
///
/// Who reads a page of a mapping that the file no longer reaches, or that its disk cannot bring,
/// gets SIGBUS, whose default ends the process. While a guard stands over a mapping, a handler puts
/// pages of zeros in the place of that page and all behind it and marks the mapping as torn; the
/// thread goes on and reads zeros. Whoever uses the values looks at torn() before it lets anybody
/// see what came of them. The mark stays: a torn mapping is mapped anew, not mended.
///
/// The handler is installed with the first guard and stays. It walks a list that only grows,
/// without a lock, and calls mmap alone, so it may interrupt any code. A fault outside all guarded
/// mappings, and a SIGBUS that somebody sent, takes the handler that was there before, a
/// sanitizer's for example, or the default. A copy of this code in another library hands on in the
/// same way.
class mapping_guard {
public:
  mapping_guard() noexcept = default;
  /// Guards [begin, begin + bytes), which was mapped from a file for reading. It has to stand until
  /// no thread reads the mapping any more, and to fall before the mapping does.
  /// @pre begin is the begin of a page; bytes > 0
  mapping_guard(const void* begin, std::size_t bytes);
  mapping_guard(mapping_guard&& other) noexcept;
  mapping_guard& operator=(mapping_guard&& other) noexcept;
  mapping_guard(const mapping_guard&) = delete;
  mapping_guard& operator=(const mapping_guard&) = delete;
  ~mapping_guard();

  /// Whether a page was missing when it was read. Cost: one relaxed load.
  [[nodiscard]] bool torn() const noexcept;

private:
  struct watched;
  friend struct watch_list;

  watched* watched_ = nullptr;
};

} // namespace troupe::engine
