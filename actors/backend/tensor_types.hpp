#pragma once

#include "troupe/actors/tensors.hpp"
#include "troupe/config/triton.hpp"

#include <cstddef>
#include <iterator>
#include <optional>

namespace troupe::actors {

/// The type by which a configuration declares tensors of the protocol's `type`; none for a number
/// that is no type.
[[nodiscard]] constexpr std::optional<config::tensor_type>
declared_type(backends::datatype type) noexcept {
  using config::tensor_type;
  constexpr tensor_type types[] = {tensor_type::boolean, tensor_type::uint8,  tensor_type::uint16,
                                   tensor_type::uint32,  tensor_type::uint64, tensor_type::int8,
                                   tensor_type::int16,   tensor_type::int32,  tensor_type::int64,
                                   tensor_type::fp16,    tensor_type::fp32,   tensor_type::fp64,
                                   tensor_type::string,  tensor_type::bf16};
  const auto at = static_cast<std::size_t>(type);
  return at < std::size(types) ? std::optional{types[at]} : std::nullopt;
}

} // namespace troupe::actors
