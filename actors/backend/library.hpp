#pragma once

#include "troupe/actors/backend_api.hpp"
#include "troupe/actors/backends.hpp"
#include "troupe/actors/hybrid_api.hpp"
#include "troupe/config/backend_needs.hpp"

#include <filesystem>
#include <memory>
#include <string>

namespace troupe::actors {

/// The version that hybrids record as the base's.
inline constexpr auto engine_version = "0.1.0";

/// A library that passed the check of its description. It stays open until the process ends, since
/// sinks and threads of its making may outlive a model.
class backend_library {
public:
  /// @errors not_found, io_failure: it cannot be opened; conflict: it has no description, or one of
  /// another interface, ABI or name (both sides are named)
  [[nodiscard]] static result<backend_library> open(const std::filesystem::path& file,
                                                    const std::string& name);

  [[nodiscard]] const troupe_backend_description& about() const noexcept { return *about_; }
  [[nodiscard]] bool is_hybrid() const noexcept { return *about_->base != '\0'; }

  /// What its constructor throws is an error. @pre not is_hybrid(), is_hybrid()
  [[nodiscard]] result<std::unique_ptr<backends::backend>> make() const;
  [[nodiscard]] result<std::unique_ptr<backends::engine_backend>> make_hybrid() const;

private:
  [[nodiscard]] result<void*> make_any() const;

  std::filesystem::path file_;
  const troupe_backend_description* about_ = nullptr;
};

/// Looks for libtroupe_<backend>.so in the version's directory, the model's, and
/// <backend_directory>/<backend>, as Triton does.
/// @errors invalid_argument: a name that leads elsewhere; not_found: the places are listed
[[nodiscard]] result<std::filesystem::path> find_library(const config::backend_question& question);

/// Asks the library in a process of its own what its model needs.
[[nodiscard]] result<config::backend_needs> ask_in_process(const config::backend_question& question,
                                                           const std::filesystem::path& library);

} // namespace troupe::actors
