#pragma once

#include "engine/weights/mapped_file.hpp"
#include "troupe/base/error.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::engine {

/// One entry of a safetensors header, checked against its file.
struct safetensors_entry {
  /// As written: "BF16", "F32", ...
  std::string dtype;
  std::vector<std::int64_t> shape;
  /// The values, inside the mapping of the file; not always aligned.
  std::span<const std::byte> bytes;
};

/// A safetensors file: mapped, its header read and checked.
///
/// Layout: 8 bytes with the header's length (little endian), a JSON object from tensor name to
/// {dtype, shape, data_offsets}, then the values. What is checked: the header's length, its JSON
/// (nesting at most 8, no name twice), that each tensor's bytes are exactly its shape times its
/// dtype, and that all tensors together cover the data once: no overlap, no hole, no remainder.
class safetensors_file {
public:
  /// The longest header that is read, in bytes.
  static constexpr std::uint64_t max_header_bytes = 100'000'000;

  /// @errors not_found, io_failure; corrupt_data: the note names file, tensor and what is wrong
  [[nodiscard]] static result<safetensors_file> open(const std::filesystem::path& path);

  [[nodiscard]] const std::map<std::string, safetensors_entry, std::less<>>&
  entries() const noexcept {
    return entries_;
  }
  [[nodiscard]] const mapped_file& file() const noexcept { return file_; }
  /// As mapped_file's.
  void keep_only(std::vector<std::span<const std::byte>> parts) {
    file_.keep_only(std::move(parts));
  }

  /// Hash of the file's size, its header and samples of its values.
  [[nodiscard]] std::uint64_t identity() const noexcept;

private:
  mapped_file file_;
  std::uint64_t header_bytes_ = 0;
  std::map<std::string, safetensors_entry, std::less<>> entries_;
};

} // namespace troupe::engine
