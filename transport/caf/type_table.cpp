#include "transport/caf/type_table.hpp"

#include <caf/detail/dynamic_message_data.hpp>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

namespace troupe::net::seam {

namespace {

/// The name follows.
constexpr std::uint16_t by_name = 0;
/// Numbers from here on are places in the table; those below are CAF's.
constexpr std::uint16_t first_of_table = 256;
constexpr std::size_t table_max = std::numeric_limits<std::uint16_t>::max() - first_of_table;
/// More elements than any handler takes.
constexpr std::size_t elements_max = 1024;

static_assert(caf::type_nrs <= first_of_table);

// FNV-1a: this tells mistakes apart, not enemies.
std::uint64_t mix(std::uint64_t hash, const std::string& text) {
  for (const char c : text + '\n')
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return hash;
}

} // namespace

type_table::type_table(const caf::actor_system_config& cfg, bool agreed) {
  // CAF marks types of its own modules; a node with caf::io has more of them than one without.
  std::map<std::string, factory> sorted;
  for (const auto& [name, make] : cfg.value_factories_by_name)
    if (name.find('@') == std::string::npos)
      sorted.emplace(name, make);
  hash_ = mix(0xcbf29ce484222325U, std::to_string(CAF_VERSION));
  std::unordered_map<std::string, std::uint16_t> places;
  for (auto& [name, make] : sorted) {
    hash_ = mix(hash_, name);
    if (!agreed || factories_.size() == table_max)
      continue;
    places.emplace(name, static_cast<std::uint16_t>(first_of_table + factories_.size()));
    factories_.push_back(std::move(make));
  }
  for (const auto& [type, name] : cfg.type_names_by_rtti)
    if (const auto found = places.find(name); found != places.end())
      numbers_.emplace(type, found->second);
}

std::uint16_t type_table::number_of(const caf::rtti_pair& type) const {
  if (type.first != 0)
    return type.first;
  const auto found = numbers_.find(*type.second);
  return found == numbers_.end() ? by_name : found->second;
}

caf::error type_table::save(caf::serializer& sink, const caf::type_erased_tuple& what) const {
  auto count = static_cast<std::uint16_t>(what.size());
  if (what.size() > elements_max)
    return caf::make_error(caf::sec::unknown_type, "a message of too many elements");
  if (auto e = sink(count))
    return e;
  const auto& types = sink.context()->system().types();
  for (std::size_t i = 0; i < what.size(); ++i) {
    auto number = number_of(what.type(i));
    if (auto e = sink(number))
      return e;
    if (number != by_name)
      continue;
    auto name = types.portable_name(what.type(i));
    if (name == types.default_type_name())
      return caf::make_error(caf::sec::unknown_type, "a message type that was not added: " +
                                                         std::string{what.type(i).second->name()});
    if (auto e = sink(name))
      return e;
  }
  for (std::size_t i = 0; i < what.size(); ++i)
    if (auto e = what.save(i, sink))
      return e;
  return caf::none;
}

caf::type_erased_value_ptr type_table::make(const caf::uniform_type_info_map& types,
                                            std::uint16_t number, const std::string& name) const {
  if (number == by_name)
    return types.make_value(name);
  if (number < first_of_table)
    return number < caf::type_nrs ? types.make_value(number) : nullptr;
  const std::size_t place = number - first_of_table;
  return place < factories_.size() ? factories_[place]() : nullptr;
}

caf::error type_table::load(caf::deserializer& source, caf::message& what) const {
  std::uint16_t count = 0;
  if (auto e = source(count))
    return e;
  if (count > elements_max)
    return caf::make_error(caf::sec::unknown_type, "a message of too many elements");
  const auto& types = source.context()->system().types();
  std::vector<caf::type_erased_value_ptr> values;
  values.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    std::uint16_t number = 0;
    std::string name;
    if (auto e = source(number))
      return e;
    if (number == by_name)
      if (auto e = source(name))
        return e;
    values.push_back(make(types, number, name));
    if (values.back() == nullptr)
      return caf::make_error(caf::sec::unknown_type,
                             "message type " + std::to_string(number) + ' ' + name);
  }
  for (auto& value : values)
    if (auto e = value->load(source))
      return e;
  auto data = caf::make_counted<caf::detail::dynamic_message_data>(std::move(values));
  what = caf::message{caf::detail::message_data::cow_ptr{std::move(data)}};
  return caf::none;
}

} // namespace troupe::net::seam
