#pragma once

/// Hybrid backends: a library that inherits the engine's own backend and overrides what it must.
/// Requests of every front end pass its execute, OpenAI's included.
///
///     class polite : public troupe::backends::engine_backend {
///       void execute(inference_request_ptr request, response_sink_ptr sink) override {
///         engine_backend::execute(std::move(request), std::make_shared<my_sink>(std::move(sink)));
///       }
///     };
///     TROUPE_HYBRID_BACKEND("polite", "0.1.0", polite)
///
/// The version is that of Troupe which the library was tested with: another one does not load it
/// unless config.pbtxt has the parameter BASE_VERSION with the text "any".

#include "troupe/actors/backend_api.hpp"
#include "troupe/actors/inference.hpp"

#include <string>
#include <utility>
#include <vector>

namespace troupe::backends {

using actors::inference_request;
using actors::inference_request_ptr;
using actors::response_part;
using actors::response_sink;
using actors::response_sink_ptr;

/// What a hybrid's model brings beside the engine's arguments.
struct hybrid_facts {
  model_facts model;
  /// The keys of model.json that own_keys() named, as a JSON object.
  std::string own_keys_json;
};

/// The engine's half of a hybrid, which the process gives it.
class engine_base {
public:
  [[nodiscard]] virtual result<void> initialize() = 0;
  virtual void execute(inference_request_ptr request, response_sink_ptr sink) = 0;
  virtual void finalize() = 0;

protected:
  ~engine_base() = default;
};

/// The engine's own backend, to inherit from. All functions of one instance are called from one
/// thread. What an override does not call does not happen.
class engine_backend {
public:
  virtual ~engine_backend() = default;

  /// Keys of model.json that are this backend's; the check of engine arguments leaves them alone.
  /// Called on an object of its own, before initialize.
  [[nodiscard]] virtual std::vector<std::string> own_keys() const { return {}; }
  /// Parameters of requests that are this backend's: KServe's request parameters and members of
  /// OpenAI's `metadata`. They arrive in inference_request::labels, as text.
  [[nodiscard]] virtual std::vector<std::string> own_parameters() const { return {}; }
  /// Loads tokenizer and chat template. `around` outlives the backend.
  [[nodiscard]] virtual result<void> initialize(const hybrid_facts&, host& /*around*/) {
    return base_->initialize();
  }
  /// Serves one request: every outcome goes to `sink`, and what is asked of the engine may be asked
  /// with another request and another sink, whose `wanted` should be that of the client's. Returns
  /// without waiting. A refusal is a part with finish_reason::error. What it throws ends the
  /// request with an error.
  virtual void execute(inference_request_ptr request, response_sink_ptr sink) {
    base_->execute(std::move(request), std::move(sink));
  }
  /// The last call.
  virtual void finalize() { base_->finalize(); }

  /// The process's, before the first call.
  void set_base(engine_base& base) noexcept { base_ = &base; }

private:
  engine_base* base_ = nullptr;
};

} // namespace troupe::backends

/// Exports the class `type` as the hybrid backend `name`, tested with this version of Troupe.
#define TROUPE_HYBRID_BACKEND(name, tested_with, type)                                             \
  TROUPE_BACKEND_ENTRY(name, "troupe", tested_with, type, ::troupe::backends::engine_backend)
