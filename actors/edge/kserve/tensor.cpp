#include "actors/edge/kserve/tensor.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace troupe::actors::kserve {

static_assert(std::endian::native == std::endian::little, "tensor data travels as it lies here");

namespace {

struct type_row {
  std::string_view name;
  std::size_t size;
};

/// In the order of `datatype`.
constexpr std::array types = {
    type_row{"BOOL", 1},   type_row{"UINT8", 1}, type_row{"UINT16", 2}, type_row{"UINT32", 4},
    type_row{"UINT64", 8}, type_row{"INT8", 1},  type_row{"INT16", 2},  type_row{"INT32", 4},
    type_row{"INT64", 8},  type_row{"FP16", 2},  type_row{"FP32", 4},   type_row{"FP64", 8},
    type_row{"BYTES", 0},  type_row{"BF16", 2},
};

constexpr std::uint64_t most_elements = 1ULL << 62U;

std::uint32_t length_at(std::string_view data, std::size_t at) {
  std::uint32_t length = 0;
  std::memcpy(&length, data.data() + at, sizeof length);
  return length;
}

outcome<void> check_elements(const tensor& t, std::uint64_t count) {
  const std::string_view data = t.data;
  std::size_t at = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto left = data.size() - at;
    if (left < 4)
      return refuse(fmt::format("unexpected end of the data of BYTES input '{}': its shape {} "
                                "asks for {} elements, and the data ends in the length of "
                                "element {}",
                                t.name, shape_text(t.shape), count, i));
    const auto length = length_at(data, at);
    if (length > left - 4)
      return refuse(
          fmt::format("element {} of BYTES input '{}' says that it has {} bytes, but only "
                      "{} follow its length",
                      i, t.name, length, left - 4));
    at += 4 + std::size_t{length};
  }
  if (at != data.size())
    return refuse(fmt::format("BYTES input '{}' of shape {} has {} bytes behind its last element",
                              t.name, shape_text(t.shape), data.size() - at));
  return {};
}

} // namespace

std::string_view to_string(datatype type) noexcept {
  return types[static_cast<std::size_t>(type)].name;
}

std::optional<datatype> datatype_of(std::string_view name) noexcept {
  const auto found =
      std::find_if(types.begin(), types.end(), [&](const type_row& r) { return r.name == name; });
  if (found == types.end())
    return std::nullopt;
  return static_cast<datatype>(found - types.begin());
}

std::size_t element_size(datatype type) noexcept {
  return types[static_cast<std::size_t>(type)].size;
}

outcome<std::uint64_t> element_count(std::string_view name,
                                     const std::vector<std::int64_t>& shape) {
  std::uint64_t count = 1;
  for (const auto dim : shape) {
    if (dim < 0)
      return refuse(
          fmt::format("the shape {} of '{}' has a negative dimension", shape_text(shape), name));
    const auto size = static_cast<std::uint64_t>(dim);
    if (size != 0 && count > most_elements / size)
      return refuse(
          fmt::format("the shape {} of '{}' has more than 2^62 elements", shape_text(shape), name));
    count *= size;
  }
  return count;
}

outcome<void> check_data(const tensor& t) {
  const auto count = element_count(t.name, t.shape);
  if (!count)
    return tl::unexpected<failure>(count.error());
  if (t.type == datatype::bytes)
    return check_elements(t, *count);
  const auto size = element_size(t.type);
  if (*count > most_elements / size || *count * size != t.data.size())
    return refuse(fmt::format("input '{}' of type {} and shape {} takes {} elements of {} bytes, "
                              "but its data has {} bytes",
                              t.name, to_string(t.type), shape_text(t.shape), *count, size,
                              t.data.size()));
  return {};
}

std::vector<std::string_view> elements_of(const tensor& t) {
  std::vector<std::string_view> all;
  const std::string_view data = t.data;
  for (std::size_t at = 0; at + 4 <= data.size();) {
    const std::size_t length = length_at(data, at);
    all.push_back(data.substr(at + 4, length));
    at += 4 + length;
  }
  return all;
}

void append_element(std::string& data, std::string_view element) {
  append_number(data, static_cast<std::uint32_t>(element.size()));
  data.append(element);
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ","));
}

} // namespace troupe::actors::kserve
