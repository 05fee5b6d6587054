#pragma once

#include "troupe/actors/backend_api.hpp"
#include "troupe/actors/inference.hpp"
#include "troupe/config/triton.hpp"

#include <memory>
#include <mutex>
#include <string>

namespace troupe::actors {

/// The way back of one request, over the sink of its edge. What does not fit what the model
/// declares ends the request with an error that names it. Thread-safe.
class custom_exchange final : public backends::exchange {
public:
  custom_exchange(std::shared_ptr<const config::triton_model> model, inference_request_ptr request,
                  response_sink_ptr sink)
      : model_{std::move(model)}, request_{std::move(request)}, sink_{std::move(sink)} {}
  ~custom_exchange() override;
  custom_exchange(const custom_exchange&) = delete;
  custom_exchange& operator=(const custom_exchange&) = delete;

  [[nodiscard]] const backends::request& input() const override { return *request_->tensors; }
  void respond(backends::response what, bool is_last) override;
  void finish() override;
  void fail(error why) override;
  [[nodiscard]] bool wanted() const override;
  [[nodiscard]] bool ended() const;

private:
  void end_with(error why);
  [[nodiscard]] result<void> check(const backends::response& what) const;

  std::shared_ptr<const config::triton_model> model_;
  inference_request_ptr request_;
  response_sink_ptr sink_;
  mutable std::mutex mutex_;
  bool ended_ = false;
};

} // namespace troupe::actors
