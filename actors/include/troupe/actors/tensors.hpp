#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

/// Tensors as KServe's protocols carry them, and what goes with them.

namespace troupe::backends {

/// The types of the protocol.
enum class datatype : std::uint8_t {
  boolean,
  uint8,
  uint16,
  uint32,
  uint64,
  int8,
  int16,
  int32,
  int64,
  fp16,
  fp32,
  fp64,
  bytes,
  bf16,
};

/// An input or output that a backend declares. A dimension is a size, or -1 for any; the batch
/// dimension is not among them.
struct tensor_spec {
  std::string name;
  datatype type = datatype::bytes;
  std::vector<std::int64_t> dims;
  /// Of inputs: a request may leave it out.
  bool optional = false;
};

/// A named tensor. `data` is little-endian and row-major; an element of BYTES is its length as four
/// bytes and then its bytes. What a request carries has been checked against its shape.
struct tensor {
  std::string name;
  datatype type = datatype::bytes;
  std::vector<std::int64_t> shape;
  std::string data;

  /// The elements of a numeric tensor, in place. @pre T is what `type` says
  template <class T>
  [[nodiscard]] std::span<const T> as() const {
    return {reinterpret_cast<const T*>(data.data()), data.size() / sizeof(T)};
  }

  /// The elements of a BYTES tensor, in place.
  [[nodiscard]] std::vector<std::string_view> strings() const {
    std::vector<std::string_view> all;
    const std::string_view rest{data};
    for (std::size_t at = 0; at + sizeof(std::uint32_t) <= rest.size();) {
      std::uint32_t length = 0;
      std::memcpy(&length, rest.data() + at, sizeof length);
      at += sizeof length;
      all.push_back(rest.substr(at, length));
      at += length;
    }
    return all;
  }

  /// A numeric tensor of these values.
  template <class T>
  [[nodiscard]] static tensor of(std::string name, datatype type, std::vector<std::int64_t> shape,
                                 std::span<const T> values) {
    return {std::move(name), type, std::move(shape),
            std::string{reinterpret_cast<const char*>(values.data()), values.size_bytes()}};
  }

  /// A BYTES tensor of these texts.
  template <class Texts>
  [[nodiscard]] static tensor of_strings(std::string name, std::vector<std::int64_t> shape,
                                         const Texts& texts) {
    tensor made{std::move(name), datatype::bytes, std::move(shape), {}};
    for (const std::string_view text : texts) {
      const auto length = static_cast<std::uint32_t>(text.size());
      made.data.append(reinterpret_cast<const char*>(&length), sizeof length);
      made.data.append(text);
    }
    return made;
  }
};

/// The value of a request or response parameter.
using parameter = std::variant<bool, std::int64_t, double, std::string>;
using parameters = std::map<std::string, parameter, std::less<>>;

/// One inference that a client asks for.
struct request {
  std::string id;
  backends::parameters parameters;
  std::vector<tensor> inputs;
  /// Names of the outputs asked for; empty: all that there are.
  std::vector<std::string> outputs;

  /// The input of that name, or null.
  [[nodiscard]] const tensor* find(std::string_view name) const {
    const auto at =
        std::find_if(inputs.begin(), inputs.end(), [&](const tensor& t) { return t.name == name; });
    return at == inputs.end() ? nullptr : &*at;
  }
  [[nodiscard]] bool wants(std::string_view output) const {
    return outputs.empty() || std::find(outputs.begin(), outputs.end(), output) != outputs.end();
  }
};

/// One response to it.
struct response {
  std::vector<tensor> outputs;
  backends::parameters parameters;
};

} // namespace troupe::backends
