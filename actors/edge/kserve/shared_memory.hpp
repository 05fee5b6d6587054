#pragma once

#include "actors/edge/kserve/tensor.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace troupe::actors::kserve {

/// The regions of POSIX shared memory that clients have registered for inputs and outputs.
///
/// A region's object is mapped when it is registered and checked again for its size at each use: a
/// client that shrinks it meanwhile gets an error, never a fault here. Thread-safe.
class shared_memory {
public:
  struct region {
    /// The name of the object, as shm_open takes it.
    std::string key;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
  };

  /// @errors already_exists: another region of that name; invalid_arg: no such object, no name of
  /// one, or it is smaller than offset and size say
  [[nodiscard]] outcome<void> add(const std::string& name, region what);
  /// Forgets one region, or all with an empty name. One that nobody knows is no error, as in
  /// Triton.
  void remove(std::string_view name);

  /// The bytes of a part of a region.
  /// @errors invalid_arg: not registered, or out of its bounds
  [[nodiscard]] outcome<std::string> read(const memory_place& from) const;
  /// Whether a place can be written to, before what belongs there is computed.
  /// @errors invalid_arg: not registered, or out of its bounds
  [[nodiscard]] outcome<void> check(const memory_place& at) const;
  /// @errors and: `data` is larger than the place
  [[nodiscard]] outcome<void> write(const memory_place& to, std::string_view data) const;

  /// [{"name", "key", "offset", "byte_size"}] of one region, or of all with an empty name.
  /// @errors not_found: no such region
  [[nodiscard]] outcome<std::string> status_json(std::string_view name) const;

private:
  struct mapping;
  [[nodiscard]] outcome<std::shared_ptr<mapping>> place(const memory_place& at) const;

  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<mapping>, std::less<>> regions_;
};

} // namespace troupe::actors::kserve
