#include "troupe/config/triton.hpp"

#include <algorithm>
#include <array>

namespace troupe::config {

namespace {

struct type_row {
  std::string_view config;
  std::string_view wire;
  std::uint32_t bytes = 0;
};
/// By the number of the type.
constexpr std::array<type_row, 15> types{{
    {"TYPE_INVALID", "", 0},
    {"TYPE_BOOL", "BOOL", 1},
    {"TYPE_UINT8", "UINT8", 1},
    {"TYPE_UINT16", "UINT16", 2},
    {"TYPE_UINT32", "UINT32", 4},
    {"TYPE_UINT64", "UINT64", 8},
    {"TYPE_INT8", "INT8", 1},
    {"TYPE_INT16", "INT16", 2},
    {"TYPE_INT32", "INT32", 4},
    {"TYPE_INT64", "INT64", 8},
    {"TYPE_FP16", "FP16", 2},
    {"TYPE_FP32", "FP32", 4},
    {"TYPE_FP64", "FP64", 8},
    {"TYPE_STRING", "BYTES", 0},
    {"TYPE_BF16", "BF16", 2},
}};

const type_row& row_of(tensor_type type) noexcept {
  const auto index = static_cast<std::size_t>(type);
  return types[index < types.size() ? index : 0];
}

const tensor_config* find(const std::vector<tensor_config>& all, std::string_view name) noexcept {
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const auto& t) { return t.name == name; });
  return found == all.end() ? nullptr : &*found;
}

} // namespace

std::string_view config_name(tensor_type type) noexcept { return row_of(type).config; }
std::string_view wire_name(tensor_type type) noexcept { return row_of(type).wire; }
std::uint32_t byte_size(tensor_type type) noexcept { return row_of(type).bytes; }

tensor_type type_of_wire_name(std::string_view name) noexcept {
  for (std::size_t i = 1; i < types.size(); ++i) {
    if (types[i].wire == name)
      return static_cast<tensor_type>(i);
  }
  return tensor_type::invalid;
}

const tensor_config* triton_model::find_input(std::string_view tensor) const noexcept {
  return find(inputs, tensor);
}

const tensor_config* triton_model::find_output(std::string_view tensor) const noexcept {
  return find(outputs, tensor);
}

std::string_view triton_model::parameter(std::string_view key) const noexcept {
  const auto found = parameters.find(std::string{key});
  return found == parameters.end() ? std::string_view{} : std::string_view{*found->second};
}

bool is_engine_backend(std::string_view backend) noexcept {
  return backend == "troupe" || backend == "vllm";
}

} // namespace troupe::config
