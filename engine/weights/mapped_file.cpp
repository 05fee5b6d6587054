#include "engine/weights/mapped_file.hpp"

#include <fmt/core.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace troupe::engine {

namespace {

/// Closes a descriptor when it goes out of scope.
struct descriptor {
  int fd;
  ~descriptor() {
    if (fd >= 0)
      ::close(fd);
  }
};

auto refused(const std::filesystem::path& path, std::string_view verb) {
  const int cause = errno;
  return fail(cause == ENOENT ? errc::not_found : errc::io_failure,
              fmt::format("{}: cannot {} the file: {}", path.string(), verb, std::strerror(cause)));
}

} // namespace

result<mapped_file> mapped_file::open(const std::filesystem::path& path) {
  const descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0)
    return refused(path, "open");
  struct stat status {};
  if (::fstat(file.fd, &status) != 0)
    return refused(path, "read the size of");
  if (!S_ISREG(status.st_mode))
    return fail(errc::io_failure, fmt::format("{}: is not a regular file", path.string()));
  mapped_file mapped;
  mapped.path_ = path;
  mapped.size_ = static_cast<std::size_t>(status.st_size);
  if (mapped.size_ == 0)
    return mapped;
  void* const data = ::mmap(nullptr, mapped.size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) {
    mapped.size_ = 0;
    return refused(path, "map");
  }
  mapped.data_ = static_cast<const std::byte*>(data);
  return mapped;
}

mapped_file::mapped_file(mapped_file&& other) noexcept
    : data_{std::exchange(other.data_, nullptr)}, size_{std::exchange(other.size_, 0)},
      path_{std::move(other.path_)} {}

mapped_file& mapped_file::operator=(mapped_file&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

mapped_file::~mapped_file() {
  if (data_ != nullptr)
    ::munmap(const_cast<std::byte*>(data_), size_);
}

void mapped_file::drop(std::span<const std::byte> part) const noexcept {
  constexpr std::uintptr_t page = 4096;
  const auto first = (reinterpret_cast<std::uintptr_t>(part.data()) + page - 1) / page * page;
  const auto last = reinterpret_cast<std::uintptr_t>(part.data() + part.size()) / page * page;
  if (first < last)
    ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

} // namespace troupe::engine
