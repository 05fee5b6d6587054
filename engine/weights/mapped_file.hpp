#pragma once

#include "engine/weights/mapping_guard.hpp"
#include "troupe/base/error.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <sys/stat.h>

namespace troupe::engine {

/// A whole file mapped for reading. Its pages belong to the page cache: they cost no private memory
/// and the system may drop them. Move-only. Checkpoints are replaced by renaming, never in place:
/// who writes to a mapped file changes the values under its readers. They may read zeros then, or
/// old and new side by side, and learn of it from intact().
class mapped_file {
public:
  /// @errors not_found: there is no such file; io_failure: it cannot be read or is no regular file
  [[nodiscard]] static result<mapped_file> open(const std::filesystem::path& path);

  mapped_file() noexcept;
  mapped_file(mapped_file&& other) noexcept;
  mapped_file& operator=(mapped_file&& other) noexcept;
  mapped_file(const mapped_file&) = delete;
  mapped_file& operator=(const mapped_file&) = delete;
  ~mapped_file();

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

  /// From now on only these parts of bytes() are read. Reads them once. Before other threads read.
  void keep_only(std::vector<std::span<const std::byte>> parts);

  /// Whether what was read from bytes() up to now are the values that the file had when it was
  /// opened: nobody has cut it or written to it since, and no page was missing. Any thread that
  /// comes after the reading ones. Cost: one look at the file's attributes, under a microsecond. A
  /// file with another time of its last change is no other file: the parts of keep_only() are then
  /// read and compared, until that change is old enough for nobody to be writing still.
  /// @errors io_failure: says what happened, and how files are replaced
  [[nodiscard]] result<void> intact() const;

  /// Copies `part` of bytes() to `to` without mapping its pages, several times as fast as reading
  /// them for the first time. Any thread.
  /// @errors io_failure: the file has become shorter, or cannot be read
  [[nodiscard]] result<void> copy(std::span<const std::byte> part, std::byte* to) const;

  /// The first bytes of the file, at most `most`, read without mapping them: what people edit in
  /// place is taken so, and what becomes shorter meanwhile is an error alone.
  /// @errors as copy()
  [[nodiscard]] result<std::string> text(std::size_t most) const;

  /// Tells the system that `part` of the file is not needed for now, so that its pages leave the
  /// resident size. The contents stay readable.
  void drop(std::span<const std::byte> part) const noexcept;

private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  int fd_ = -1;
  /// When the file was written last, in nanoseconds, as it was opened.
  std::int64_t written_at_ns_ = 0;
  std::filesystem::path path_;
  mapping_guard guard_;

  struct kept_parts;
  [[nodiscard]] bool shows_the_same(const struct stat& now) const;
  std::unique_ptr<kept_parts> kept_;
};

} // namespace troupe::engine
