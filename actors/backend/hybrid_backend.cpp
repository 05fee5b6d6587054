#include "actors/backend/hybrid_backend.hpp"

#include "actors/backend/end_with_error.hpp"
#include "troupe/base/log.hpp"

#include <atomic>
#include <string>
#include <string_view>
#include <utility>

namespace troupe::actors {

namespace {

std::string where(std::string_view function, const config::model_config& model) {
  return std::string{function} + " of the backend '" + *model.triton.backend + "'";
}

/// Around a sink of the library's: what that one throws ends its own request, and not the actor
/// that serves all others of the model.
class guarded_sink final : public response_sink {
public:
  guarded_sink(response_sink_ptr own, response_sink_ptr client, std::string who)
      : own_{std::move(own)}, client_{std::move(client)}, who_{std::move(who)} {}

  void on_accepted(request_id id, std::uint32_t prompt_tokens) override {
    call("on_accepted", [&] { own_->on_accepted(id, prompt_tokens); });
  }
  void on_part(response_part part) override {
    call("on_part", [&] { own_->on_part(std::move(part)); });
  }
  [[nodiscard]] bool wanted() const override {
    bool is = false;
    const auto asked = guarded(who_, [&]() -> result<void> {
      is = own_->wanted();
      return {};
    });
    return !broken_ && asked && is;
  }

private:
  template <class F>
  void call(std::string_view function, F&& what) {
    if (broken_)
      return;
    const auto done =
        guarded(std::string{function} + " of a sink of " + who_, [&]() -> result<void> {
          what();
          return {};
        });
    if (done)
      return;
    broken_ = true;
    log_error("{}", done.error().note);
    if (client_)
      end_with_error(*client_, done.error());
  }

  response_sink_ptr own_;
  response_sink_ptr client_;
  std::string who_;
  std::atomic<bool> broken_ = false;
};

} // namespace

result<void> hybrid_backend::base_half::initialize() {
  return whole_.own_.initialize(whole_.model_, whole_.port_);
}

void hybrid_backend::base_half::execute(inference_request_ptr request, response_sink_ptr sink) {
  if (sink != whole_.client_)
    sink = std::make_shared<guarded_sink>(std::move(sink), whole_.client_,
                                          "the backend '" + *whole_.model_.triton.backend + "'");
  whole_.own_.execute(std::move(request), std::move(sink));
}

void hybrid_backend::base_half::finalize() { whole_.own_.finalize(); }

void hybrid_backend::client_port::submit(engine::submission request,
                                         std::shared_ptr<token_stream> stream,
                                         response_sink_ptr owner) {
  whole_.engine_->submit(std::move(request), std::move(stream),
                         whole_.client_ ? whole_.client_ : std::move(owner));
}

result<config::model_config> hybrid_backend::auto_complete_config(config::model_config given) {
  const auto library = backend_library::open(given.triton.library, *given.triton.backend);
  if (!library)
    return fail(library.error());
  auto made = library->make_hybrid();
  if (!made)
    return fail(made.error());
  class_ = std::move(*made);
  class_->set_base(base_);
  return given;
}

result<void> hybrid_backend::initialize(const config::model_config& model, engine_port& engine) {
  model_ = model;
  engine_ = &engine;
  host_ = std::make_unique<library_host>(model.name, numbers_);
  const backends::hybrid_facts facts{facts_of(model.triton, model.version, 0), model.own_keys};
  return guarded(where("initialize", model), [&] { return class_->initialize(facts, *host_); });
}

void hybrid_backend::execute(inference_request_ptr request, response_sink_ptr sink) {
  client_ = sink;
  const auto done = guarded(where("execute", model_), [&]() -> result<void> {
    class_->execute(std::move(request), sink);
    return {};
  });
  client_.reset();
  if (done)
    return;
  end_with_error(*sink, done.error());
}

void hybrid_backend::finalize() {
  const auto done = guarded(where("finalize", model_), [&]() -> result<void> {
    class_->finalize();
    return {};
  });
  if (!done)
    log_error("model {}: {}", model_.name, done.error().note);
}

} // namespace troupe::actors
