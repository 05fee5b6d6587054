#include "kernels/cpu/tensor.hpp"

#include <fmt/core.h>

#include <cerrno>
#include <sys/mman.h>
#include <utility>

namespace troupe::kernels {

namespace {

constexpr std::size_t huge_page_bytes = 2U << 20U;
constexpr std::size_t huge_from_bytes = 4U << 20U;

} // namespace

result<buffer> buffer::make(std::size_t bytes) {
  buffer made;
  made.size_ = bytes;
  if (bytes == 0)
    return made;
  const bool huge = bytes >= huge_from_bytes;
  const std::size_t mapped = bytes + (huge ? huge_page_bytes : 0);
  if (mapped < bytes)
    return fail(errc::out_of_memory, fmt::format("{} bytes are more than can be addressed", bytes));
  void* mapping = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED)
    return fail(errc::out_of_memory,
                fmt::format("cannot map {} bytes: {}", bytes, std::strerror(errno)));
  made.mapping_ = mapping;
  made.mapped_ = mapped;
  made.data_ = mapping;
  if (huge) {
    const auto address = reinterpret_cast<std::uintptr_t>(mapping);
    const std::uintptr_t aligned = (address + huge_page_bytes - 1) & ~(huge_page_bytes - 1);
    made.data_ = static_cast<std::byte*>(mapping) + (aligned - address);
    // Without huge pages everything still works, only slower: the answer does not matter.
    (void)madvise(made.data_, bytes, MADV_HUGEPAGE);
  }
  return made;
}

buffer::buffer(buffer&& other) noexcept { *this = std::move(other); }

buffer& buffer::operator=(buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

buffer::~buffer() {
  if (mapping_ != nullptr)
    munmap(mapping_, mapped_);
}

} // namespace troupe::kernels
