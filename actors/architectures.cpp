#include "troupe/actors/architectures.hpp"

#include "engine/models/families.hpp"

namespace troupe::actors {

std::vector<std::string> served_architectures() {
  std::vector<std::string> names;
  for (const auto& family : engine::model_families())
    names.emplace_back(family.defaults.name);
  return names;
}

} // namespace troupe::actors
