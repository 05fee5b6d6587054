#include "actors/edge/kserve/json_values.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <cstring>
#include <limits>

namespace troupe::actors::kserve {

namespace {

using nlohmann::json;
using ordered = nlohmann::ordered_json;

std::string shown(const json& v) {
  auto text = v.dump(-1, ' ', false, json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 57) + "..." : text;
}

/// Why an element is refused; empty if it was taken.
template <class T>
bool append_integer(std::string& data, const json& v) {
  if (!v.is_number_integer())
    return false;
  if (v.is_number_unsigned()) {
    const auto n = v.get<std::uint64_t>();
    if (n > static_cast<std::uint64_t>(std::numeric_limits<T>::max()))
      return false;
    append_number(data, static_cast<T>(n));
    return true;
  }
  const auto n = v.get<std::int64_t>();
  if (std::is_unsigned_v<T> || n < static_cast<std::int64_t>(std::numeric_limits<T>::min()))
    return false;
  append_number(data, static_cast<T>(n));
  return true;
}

template <class T>
bool append_real(std::string& data, const json& v) {
  if (!v.is_number())
    return false;
  const auto n = v.get<double>();
  if (std::abs(n) > static_cast<double>(std::numeric_limits<T>::max()))
    return false;
  append_number(data, static_cast<T>(n));
  return true;
}

bool append_one(std::string& data, const json& v, datatype type) {
  switch (type) {
  case datatype::boolean:
    if (v.is_boolean())
      data.push_back(v.get<bool>() ? '\1' : '\0');
    return v.is_boolean();
  case datatype::uint8:
    return append_integer<std::uint8_t>(data, v);
  case datatype::uint16:
    return append_integer<std::uint16_t>(data, v);
  case datatype::uint32:
    return append_integer<std::uint32_t>(data, v);
  case datatype::uint64:
    return append_integer<std::uint64_t>(data, v);
  case datatype::int8:
    return append_integer<std::int8_t>(data, v);
  case datatype::int16:
    return append_integer<std::int16_t>(data, v);
  case datatype::int32:
    return append_integer<std::int32_t>(data, v);
  case datatype::int64:
    return append_integer<std::int64_t>(data, v);
  case datatype::fp32:
    return append_real<float>(data, v);
  case datatype::fp64:
    return append_real<double>(data, v);
  case datatype::bytes:
    if (v.is_string())
      append_element(data, v.get_ref<const std::string&>());
    return v.is_string();
  default:
    return false;
  }
}

/// Depth is bounded by parse_body.
outcome<void> append_all(std::string& data, const json& v, datatype type, std::string_view name) {
  if (v.is_array()) {
    for (const auto& item : v)
      if (auto good = append_all(data, item, type, name); !good)
        return good;
    return {};
  }
  if (!append_one(data, v, type))
    return refuse(
        fmt::format("input '{}' holds {}, which is no {}", name, shown(v), to_string(type)));
  return {};
}

template <class T>
T number_at(const tensor& t, std::size_t i) {
  T n;
  std::memcpy(&n, t.data.data() + i * sizeof n, sizeof n);
  return n;
}

template <class T>
ordered numbers(const tensor& t) {
  auto list = ordered::array();
  for (std::size_t i = 0; i < t.data.size() / sizeof(T); ++i)
    list.push_back(number_at<T>(t, i));
  return list;
}

ordered truths(const tensor& t) {
  auto list = ordered::array();
  for (const char c : t.data)
    list.push_back(c != 0);
  return list;
}

ordered texts(const tensor& t) {
  auto list = ordered::array();
  for (const auto element : elements_of(t))
    list.push_back(element);
  return list;
}

} // namespace

outcome<std::string> data_of(const json& value, datatype type, std::string_view name) {
  if (type == datatype::fp16 || type == datatype::bf16)
    return refuse(fmt::format("input '{}' has type {}, whose data JSON cannot carry; send it in "
                              "the binary part",
                              name, to_string(type)));
  std::string data;
  if (auto good = append_all(data, value, type, name); !good)
    return tl::unexpected<failure>(std::move(good.error()));
  return data;
}

std::size_t count_of(const json& value) {
  if (!value.is_array())
    return 1;
  std::size_t n = 0;
  for (const auto& item : value)
    n += count_of(item);
  return n;
}

ordered list_of(const tensor& t) {
  switch (t.type) {
  case datatype::boolean:
    return truths(t);
  case datatype::uint8:
    return numbers<std::uint8_t>(t);
  case datatype::uint16:
    return numbers<std::uint16_t>(t);
  case datatype::uint32:
    return numbers<std::uint32_t>(t);
  case datatype::uint64:
    return numbers<std::uint64_t>(t);
  case datatype::int8:
    return numbers<std::int8_t>(t);
  case datatype::int16:
    return numbers<std::int16_t>(t);
  case datatype::int32:
    return numbers<std::int32_t>(t);
  case datatype::int64:
    return numbers<std::int64_t>(t);
  case datatype::fp32:
    return numbers<float>(t);
  case datatype::fp64:
    return numbers<double>(t);
  case datatype::bytes:
    return texts(t);
  default:
    return ordered::array();
  }
}

outcome<parameter> parameter_of(const json& value, std::string_view name) {
  if (value.is_boolean())
    return parameter{value.get<bool>()};
  if (value.is_string())
    return parameter{value.get<std::string>()};
  if (value.is_number_float())
    return parameter{value.get<double>()};
  if (value.is_number_integer()) {
    if (value.is_number_unsigned() &&
        value.get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()})
      return refuse(fmt::format("parameter '{}' is larger than an integer of 64 bits", name));
    return parameter{value.get<std::int64_t>()};
  }
  return refuse(fmt::format("Converting keyword: 'parameters': parameter '{}' has invalid type. It "
                            "should be either 'int', 'bool', or 'string'. Lists and objects go "
                            "into the input 'sampling_parameters', as JSON text",
                            name.substr(0, 64)));
}

} // namespace troupe::actors::kserve
