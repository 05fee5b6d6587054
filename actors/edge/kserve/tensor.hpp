#pragma once

#include "actors/edge/kserve/failure.hpp"
#include "troupe/actors/tensors.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::actors::kserve {

using backends::datatype;

/// "BOOL", "BYTES", ...
[[nodiscard]] std::string_view to_string(datatype type) noexcept;
[[nodiscard]] std::optional<datatype> datatype_of(std::string_view name) noexcept;
/// Bytes of one element; 0 for BYTES, whose elements have lengths of their own.
[[nodiscard]] std::size_t element_size(datatype type) noexcept;

/// A part of a registered shared memory region.
struct memory_place {
  std::string region;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

/// A named tensor. `data` is little-endian and row-major; an element of BYTES is its length as four
/// bytes and then its bytes.
struct tensor {
  std::string name;
  datatype type = datatype::bytes;
  std::vector<std::int64_t> shape;
  std::string data;
  /// Of an output: where its data lies instead of in `data`.
  std::optional<memory_place> memory = std::nullopt;
};

/// The product of the dimensions.
/// @errors invalid_arg: a negative dimension, or a product beyond 2^62
[[nodiscard]] outcome<std::uint64_t> element_count(std::string_view name,
                                                   const std::vector<std::int64_t>& shape);

/// Checks that `data` holds exactly what the shape says.
[[nodiscard]] outcome<void> check_data(const tensor& t);

/// The elements of a BYTES tensor that check_data() has passed; they point into it.
[[nodiscard]] std::vector<std::string_view> elements_of(const tensor& t);

/// Adds one element to the data of a BYTES tensor.
void append_element(std::string& data, std::string_view element);
/// Adds the bytes of a number, as they lie in memory.
template <class T>
void append_number(std::string& data, T number) {
  data.append(reinterpret_cast<const char*>(&number), sizeof number);
}

/// "[1,2]"
[[nodiscard]] std::string shape_text(const std::vector<std::int64_t>& shape);

} // namespace troupe::actors::kserve
