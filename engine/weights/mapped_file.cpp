#include "engine/weights/mapped_file.hpp"

#include "engine/weights/fingerprint.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <ctime>
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

std::int64_t ns_of(const struct timespec& time) {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

std::int64_t written_at_ns(const struct stat& status) { return ns_of(status.st_mtim); }

/// As fast as memory: eight hashes side by side.
std::uint64_t print_of(const std::vector<std::span<const std::byte>>& parts) {
  constexpr std::size_t lanes = 8;
  std::array<fingerprint, lanes> each;
  fingerprint all;
  for (auto part : parts) {
    for (; part.size() >= lanes * 8; part = part.subspan(lanes * 8)) {
      std::array<std::uint64_t, lanes> words{};
      std::memcpy(words.data(), part.data(), sizeof words);
      for (std::size_t i = 0; i < lanes; ++i)
        each[i].add(words[i]);
    }
    all.add(part);
  }
  for (const auto& one : each)
    all.add(one.value());
  return all.value();
}

} // namespace

/// What is left to be read, and a hash of its values.
struct mapped_file::kept_parts {
  std::vector<std::span<const std::byte>> parts;
  std::uint64_t print = 0;
  /// A later time of the last change, of which it is known that it changed nothing here.
  std::atomic<std::int64_t> accepted_ns{0};
};

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

mapped_file::mapped_file() noexcept = default;

mapped_file::mapped_file(mapped_file&& other) noexcept
    : data_{std::exchange(other.data_, nullptr)}, size_{std::exchange(other.size_, 0)},
      fd_{std::exchange(other.fd_, -1)}, written_at_ns_{other.written_at_ns_},
      path_{std::move(other.path_)}, guard_{std::move(other.guard_)}, kept_{
                                                                          std::move(other.kept_)} {}

mapped_file& mapped_file::operator=(mapped_file&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(fd_, other.fd_);
  std::swap(written_at_ns_, other.written_at_ns_);
  std::swap(path_, other.path_);
  std::swap(guard_, other.guard_);
  std::swap(kept_, other.kept_);
  return *this;
}

mapped_file::~mapped_file() {
  guard_ = {};
  if (data_ != nullptr)
    ::munmap(const_cast<std::byte*>(data_), size_);
  if (fd_ >= 0)
    ::close(fd_);
}

void mapped_file::keep_only(std::vector<std::span<const std::byte>> parts) {
  kept_ = std::make_unique<kept_parts>();
  kept_->print = print_of(parts);
  for (const auto part : parts)
    drop(part);
  kept_->parts = std::move(parts);
}

/// A file may have been touched, or written with what it had: its values decide. While somebody may
/// be writing still, they are looked at each time. Nobody can set the time of the last change of
/// the attributes, which every write and every touch moves on.
bool mapped_file::shows_the_same(const struct stat& now) const {
  constexpr std::int64_t settled_ns = 10'000'000'000;
  const auto written = written_at_ns(now);
  if (kept_ == nullptr)
    return false;
  if (written == kept_->accepted_ns.load(std::memory_order_relaxed))
    return true;
  struct timespec clock {};
  ::clock_gettime(CLOCK_REALTIME, &clock);
  if (print_of(kept_->parts) != kept_->print || guard_.torn())
    return false;
  if (ns_of(clock) - ns_of(now.st_ctim) > settled_ns)
    kept_->accepted_ns.store(written, std::memory_order_relaxed);
  return true;
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
  if (size != size_ || (written_at_ns(now) != written_at_ns_ && !shows_the_same(now)))
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
