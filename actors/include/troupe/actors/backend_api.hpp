#pragma once

/// Backends of people's own: a library backends/<name>/libtroupe_<name>.so that serves models whose
/// config.pbtxt says `backend: "<name>"`. This header is all that such a library needs; it links to
/// nothing of Troupe, because everything crosses the border through the classes below.
///
///     class echo : public troupe::backends::backend {
///       result<void> execute(std::span<const exchange_ptr> requests) override;
///     };
///     TROUPE_BACKEND("echo", echo)
///
/// docs/backends.md walks through one; hybrid_api.hpp is for those that build on the engine.

#include "troupe/actors/tensors.hpp"
#include "troupe/base/error.hpp"

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

extern "C" {

/// What a library says of itself before any C++ crosses the border. The order of the first five
/// fields never changes.
struct troupe_backend_description {
  std::uint32_t api_version;
  /// TROUPE_BACKEND_ABI of the compiler that made it.
  const char* abi;
  /// The <name> of its file.
  const char* name;
  /// Of a hybrid: "troupe", and the version of Troupe that it was tested with. Otherwise empty.
  const char* base;
  const char* base_version;
  /// Makes a troupe::backends::backend, or, with a base, a troupe::backends::engine_backend.
  void* (*make)();
};
}

#define TROUPE_BACKEND_TEXT_(x) #x
#define TROUPE_BACKEND_TEXT(x) TROUPE_BACKEND_TEXT_(x)
/// What must be alike for classes and the standard library's types to mean the same on both sides.
#define TROUPE_BACKEND_ABI                                                                         \
  "libstdc++ cxx11=" TROUPE_BACKEND_TEXT(_GLIBCXX_USE_CXX11_ABI) " gxx=" TROUPE_BACKEND_TEXT(      \
      __GXX_ABI_VERSION) " pointer=" TROUPE_BACKEND_TEXT(__SIZEOF_POINTER__)

namespace troupe::backends {

/// Of this header. A library of another one is refused.
inline constexpr std::uint32_t api_version = 2;
/// The one function that a library exports: `const troupe_backend_description* ()`.
inline constexpr auto entry_name = "troupe_backend_describe";

/// What a backend's model declares; every field is a wish that yields to what a person wrote in
/// config.pbtxt. Where a written value cannot be lived with, loading fails and names both.
struct declarations {
  std::vector<tensor_spec> inputs;
  std::vector<tensor_spec> outputs;
  /// The largest batch that execute takes: its tensors then have a leading dimension. Empty: any.
  std::optional<std::uint32_t> max_batch_size;
  /// A request may have any number of responses. Empty: whatever is written, one by default.
  std::optional<bool> decoupled;
  /// Requests are to be put together up to max_batch_size, as `dynamic_batching { }` says it, where
  /// config.pbtxt does not choose otherwise.
  bool dynamic_batching = false;
};

/// The model that an instance serves.
struct model_facts {
  std::string name;
  std::uint64_t version = 0;
  std::filesystem::path directory;
  /// `parameters` of config.pbtxt.
  std::map<std::string, std::string> parameters;
  /// The completed config.pbtxt as JSON. Empty in auto_complete_config.
  std::string config_json;
  /// Which of the model's instances this is, from 0.
  std::uint32_t instance = 0;

  [[nodiscard]] std::filesystem::path version_directory() const {
    return directory / std::to_string(version);
  }
  /// The parameter's text, or `otherwise`.
  [[nodiscard]] std::string parameter(const std::string& key, std::string otherwise = {}) const {
    const auto found = parameters.find(key);
    return found == parameters.end() ? std::move(otherwise) : found->second;
  }
};

enum class log_severity : std::uint8_t { debug, info, warning, error };

/// What the process does for a backend. Outlives it; thread-safe.
class host {
public:
  /// A line in the process's log, behind the model's name.
  virtual void log(log_severity severity, std::string_view text) = 0;
  /// Adds to the series `metric` of the counter troupe:backend_total{model, metric} on /metrics.
  /// At most 64 names a model; more are dropped.
  virtual void count(std::string_view metric, double by) = 0;
  /// Sets the series `metric` of the gauge troupe:backend_value.
  virtual void measure(std::string_view metric, double value) = 0;

protected:
  ~host() = default;
};

/// One request and the way back. Thread-safe: a decoupled backend may keep it and answer from any
/// thread. When the last reference goes without a last response, the client gets an error.
class exchange {
public:
  virtual ~exchange() = default;
  [[nodiscard]] virtual const request& input() const = 0;
  /// Sends a response. Of a model that is not decoupled it is the last, whatever is said; outputs
  /// that the client did not ask for are dropped.
  virtual void respond(response what, bool is_last = false) = 0;
  /// Nothing follows: for decoupled models whose last response did not say so.
  virtual void finish() = 0;
  /// Ends this request alone with an error; the note is what the client reads.
  virtual void fail(error why) = 0;
  /// False once the client is gone or its answer has ended: what is not done need not be done.
  [[nodiscard]] virtual bool wanted() const = 0;
};
using exchange_ptr = std::shared_ptr<exchange>;

/// What serves one instance of a model, in the order of Triton's life cycle. An instance has a
/// thread of its own, which may block; `instance_group { count }` makes several. A function that
/// throws is as one that returns the exception's text as an error.
class backend {
public:
  virtual ~backend() = default;
  /// Declares what config.pbtxt may leave out. Called on an object of its own, also by
  /// `troupe check`: it must not load anything large.
  [[nodiscard]] virtual result<void> auto_complete_config(const model_facts&, declarations&) {
    return {};
  }
  /// Loads what execute needs; an error fails the load with that text. `around` outlives the
  /// backend.
  [[nodiscard]] virtual result<void> initialize(const model_facts&, host& /*around*/) { return {}; }
  /// Answers the requests of one batch, so that they can be computed in one go: at least one, and
  /// more where config.pbtxt says `dynamic_batching`. The first dimensions of their tensors are
  /// together at most max_batch_size; behind these all have equal shapes and the same inputs, but
  /// for inputs with `allow_ragged_batch`. Each gets a response of its own, in any order. Of a
  /// model that is not decoupled, each is answered before this returns. An error ends those of
  /// them that have no last response.
  [[nodiscard]] virtual result<void> execute(std::span<const exchange_ptr> requests) = 0;
  /// The last call.
  virtual void finalize() {}
};

} // namespace troupe::backends

#define TROUPE_BACKEND_ENTRY(name, base, base_version, type, interface)                            \
  extern "C" __attribute__((visibility("default"))) const troupe_backend_description*              \
  troupe_backend_describe() {                                                                      \
    static const troupe_backend_description description{                                           \
        ::troupe::backends::api_version, TROUPE_BACKEND_ABI, name, base, base_version, [] {        \
          return static_cast<void*>(static_cast<interface*>(new type));                            \
        }};                                                                                        \
    return &description;                                                                           \
  }

/// Exports the class `type` as the backend `name`. Once a library.
#define TROUPE_BACKEND(name, type)                                                                 \
  TROUPE_BACKEND_ENTRY(name, "", "", type, ::troupe::backends::backend)
