#pragma once

#include <caf/all.hpp>

#include <cstdint>
#include <string>
#include <typeindex>
#include <unordered_map>
#include <vector>

namespace troupe::net::seam {

/// The message types of a program as numbers, and messages with numbers in the place of CAF's type
/// names. Two nodes number alike when their hashes are equal, which the hello makes sure of: CAF's
/// own types by CAF's numbers, all others by their place among the sorted names. A type without a
/// number (one that a module of CAF brings along) travels under its name.
///
/// A message is a count, as many numbers, and the values; all counts and numbers have 16 bits.
class type_table {
public:
  /// Knows CAF's own types alone.
  type_table() = default;
  /// @param agreed false: only CAF's own types get numbers, because peers may have other types
  explicit type_table(const caf::actor_system_config& cfg, bool agreed);

  /// Covers CAF's version, the names and their order.
  [[nodiscard]] std::uint64_t hash() const noexcept { return hash_; }

  /// @errors caf::sec::unknown_type
  [[nodiscard]] caf::error save(caf::serializer& sink, const caf::type_erased_tuple& what) const;
  /// @errors caf::sec::unknown_type, end_of_stream
  [[nodiscard]] caf::error load(caf::deserializer& source, caf::message& what) const;

private:
  using factory = caf::uniform_type_info_map::value_factory;

  [[nodiscard]] std::uint16_t number_of(const caf::rtti_pair& type) const;
  [[nodiscard]] caf::type_erased_value_ptr make(const caf::uniform_type_info_map& types,
                                                std::uint16_t number,
                                                const std::string& name) const;

  std::uint64_t hash_ = 0;
  std::unordered_map<std::type_index, std::uint16_t> numbers_;
  std::vector<factory> factories_;
};

} // namespace troupe::net::seam
