#include "actors/edge/grpc/contents.hpp"

#include <fmt/core.h>

#include <limits>

namespace troupe::actors::kserve {

namespace {

using inference::InferTensorContents;

std::size_t total_of(const InferTensorContents& c) {
  const auto all = c.bool_contents_size() + c.int_contents_size() + c.int64_contents_size() +
                   c.uint_contents_size() + c.uint64_contents_size() + c.fp32_contents_size() +
                   c.fp64_contents_size() + c.bytes_contents_size();
  return static_cast<std::size_t>(all);
}

/// The numbers of `list` as elements of type T. What stands in other members is refused, so that
/// nothing that was sent is overlooked.
template <class T, class List>
outcome<std::string> numbers(const List& list, std::size_t total, datatype type,
                             const std::string& name) {
  if (static_cast<std::size_t>(list.size()) != total)
    return refuse(fmt::format("the contents of input '{}' hold elements of another type than its "
                              "datatype {}",
                              name, to_string(type)));
  std::string data;
  data.reserve(total * sizeof(T));
  for (const auto value : list) {
    if constexpr (sizeof(T) < sizeof value) {
      const auto wide = static_cast<std::int64_t>(value);
      if (wide < static_cast<std::int64_t>(std::numeric_limits<T>::min()) ||
          wide > static_cast<std::int64_t>(std::numeric_limits<T>::max()))
        return refuse(
            fmt::format("input '{}' holds {}, which is no {}", name, wide, to_string(type)));
    }
    append_number(data, static_cast<T>(value));
  }
  return data;
}

outcome<std::string> strings(const InferTensorContents& c, std::size_t total,
                             const std::string& name) {
  if (static_cast<std::size_t>(c.bytes_contents_size()) != total)
    return refuse(fmt::format("the contents of input '{}' hold elements of another type than its "
                              "datatype BYTES",
                              name));
  std::string data;
  for (const auto& element : c.bytes_contents())
    append_element(data, element);
  return data;
}

} // namespace

outcome<std::string> data_of(const InferTensorContents& c, datatype type, const std::string& name) {
  const auto total = total_of(c);
  switch (type) {
  case datatype::boolean:
    return numbers<bool>(c.bool_contents(), total, type, name);
  case datatype::uint8:
    return numbers<std::uint8_t>(c.uint_contents(), total, type, name);
  case datatype::uint16:
    return numbers<std::uint16_t>(c.uint_contents(), total, type, name);
  case datatype::uint32:
    return numbers<std::uint32_t>(c.uint_contents(), total, type, name);
  case datatype::uint64:
    return numbers<std::uint64_t>(c.uint64_contents(), total, type, name);
  case datatype::int8:
    return numbers<std::int8_t>(c.int_contents(), total, type, name);
  case datatype::int16:
    return numbers<std::int16_t>(c.int_contents(), total, type, name);
  case datatype::int32:
    return numbers<std::int32_t>(c.int_contents(), total, type, name);
  case datatype::int64:
    return numbers<std::int64_t>(c.int64_contents(), total, type, name);
  case datatype::fp32:
    return numbers<float>(c.fp32_contents(), total, type, name);
  case datatype::fp64:
    return numbers<double>(c.fp64_contents(), total, type, name);
  case datatype::bytes:
    return strings(c, total, name);
  case datatype::fp16:
  case datatype::bf16:
    break;
  }
  return refuse(fmt::format("the data of input '{}' of type {} must be in raw_input_contents", name,
                            to_string(type)));
}

} // namespace troupe::actors::kserve
