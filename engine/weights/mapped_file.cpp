#include "engine/weights/mapped_file.hpp"

#include <fmt/core.h>

#include <algorithm>
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

auto refused(const std::filesystem::path& path, std::string_view verb) {
  const int cause = errno;
  return fail(cause == ENOENT ? errc::not_found : errc::io_failure,
              fmt::format("{}: cannot {} the file: {}", path.string(), verb, std::strerror(cause)));
}

std::int64_t written_at_ns(const struct stat& status) {
  return std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

} // namespace

result<mapped_file> mapped_file::open(const std::filesystem::path& path) {
  mapped_file mapped;
  mapped.path_ = path;
  mapped.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (mapped.fd_ < 0)
    return refused(path, "open");
  struct stat status {};
  if (::fstat(mapped.fd_, &status) != 0)
    return refused(path, "read the size of");
  if (!S_ISREG(status.st_mode))
    return fail(errc::io_failure, fmt::format("{}: is not a regular file", path.string()));
  mapped.size_ = static_cast<std::size_t>(status.st_size);
  mapped.written_at_ns_ = written_at_ns(status);
  if (mapped.size_ == 0)
    return mapped;
  void* const data = ::mmap(nullptr, mapped.size_, PROT_READ, MAP_PRIVATE, mapped.fd_, 0);
  if (data == MAP_FAILED) {
    mapped.size_ = 0;
    return refused(path, "map");
  }
  mapped.data_ = static_cast<const std::byte*>(data);
  mapped.guard_ = mapping_guard{data, mapped.size_};
  return mapped;
}

mapped_file::mapped_file(mapped_file&& other) noexcept
    : data_{std::exchange(other.data_, nullptr)}, size_{std::exchange(other.size_, 0)},
      fd_{std::exchange(other.fd_, -1)}, written_at_ns_{other.written_at_ns_},
      path_{std::move(other.path_)}, guard_{std::move(other.guard_)} {}

mapped_file& mapped_file::operator=(mapped_file&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(fd_, other.fd_);
  std::swap(written_at_ns_, other.written_at_ns_);
  std::swap(path_, other.path_);
  std::swap(guard_, other.guard_);
  return *this;
}

mapped_file::~mapped_file() {
  guard_ = {};
  if (data_ != nullptr)
    ::munmap(const_cast<std::byte*>(data_), size_);
  if (fd_ >= 0)
    ::close(fd_);
}

result<void> mapped_file::intact() const {
  const auto changed = [&](std::string_view how) {
    return fail(errc::io_failure,
                fmt::format("{}: {} while it was in use; to replace it, write a new file beside it "
                            "and rename that over it",
                            path_.string(), how));
  };
  struct stat now {};
  if (::fstat(fd_, &now) != 0)
    return refused(path_, "read the size of");
  const auto size = static_cast<std::uint64_t>(now.st_size);
  if (size < size_)
    return changed(fmt::format("the file was cut from {} to {} bytes", size_, size));
  // A cut inside a page brings no signal, and one that is mended before anybody reads leaves other
  // values.
  if (size != size_ || written_at_ns(now) != written_at_ns_)
    return changed("the file was written to");
  if (guard_.torn())
    return changed("a part of the file was missing or could not be read");
  return {};
}

result<void> mapped_file::copy(std::span<const std::byte> part, std::byte* to) const {
  auto at = static_cast<::off_t>(part.data() - data_);
  while (!part.empty()) {
    const auto got = ::pread(fd_, to, part.size(), at);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return refused(path_, "read");
    if (got == 0)
      return fail(
          errc::io_failure,
          fmt::format("{}: the file ends at byte {}, where it was longer when it was opened",
                      path_.string(), at));
    part = part.subspan(static_cast<std::size_t>(got));
    to += got;
    at += got;
  }
  return {};
}

result<std::string> mapped_file::text(std::size_t most) const {
  std::string read(std::min(most, size_), '\0');
  if (auto done = copy(bytes().first(read.size()), reinterpret_cast<std::byte*>(read.data()));
      !done)
    return fail(done.error());
  return read;
}

void mapped_file::drop(std::span<const std::byte> part) const noexcept {
  constexpr std::uintptr_t page = 4096;
  const auto first = (reinterpret_cast<std::uintptr_t>(part.data()) + page - 1) / page * page;
  const auto last = reinterpret_cast<std::uintptr_t>(part.data() + part.size()) / page * page;
  if (first < last)
    ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

} // namespace troupe::engine
