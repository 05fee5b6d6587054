#include "actors/backend/engine_backend.hpp"

#include "actors/backend/end_with_error.hpp"
#include "actors/backend/text_stream.hpp"

#include <random>

namespace troupe::actors {

result<config::model_config> engine_backend::auto_complete_config(config::model_config given) {
  // The loader of the configuration has completed everything that the engine needs to know from the
  // model's own files, with the origin of each value.
  return given;
}

result<void> engine_backend::initialize(const config::model_config& model, engine_port& engine) {
  auto loaded = front_half::load(model);
  if (!loaded)
    return fail(loaded.error());
  front_ = std::move(*loaded);
  engine_ = &engine;
  std::random_device entropy;
  seeds_ = splitmix64{(std::uint64_t{entropy()} << 32) | entropy()};
  return {};
}

void engine_backend::execute(inference_request_ptr request, response_sink_ptr sink) {
  if (!front_ || engine_ == nullptr)
    return end_with_error(*sink,
                          {errc::internal, "the engine's backend is asked without having been "
                                           "initialized; initialize() of a hybrid calls that of "
                                           "engine_backend"});
  auto submission = front_->prepare(*request, seeds_());
  if (!submission)
    return end_with_error(*sink, std::move(submission.error()));
  const auto prompt_tokens = static_cast<std::uint32_t>(submission->prompt.size());
  auto stream = text_stream::make(front_, std::move(request), prompt_tokens, sink);
  if (!stream)
    return end_with_error(*sink, std::move(stream.error()));
  engine_->submit(std::move(*submission), std::move(*stream), std::move(sink));
}

void engine_backend::finalize() { engine_ = nullptr; }

std::unique_ptr<backend> make_engine_backend() { return std::make_unique<engine_backend>(); }

} // namespace troupe::actors
