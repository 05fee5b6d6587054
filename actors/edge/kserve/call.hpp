#pragma once

#include "actors/edge/kserve/service.hpp"
#include "actors/edge/kserve/text_request.hpp"
#include "actors/edge/sink.hpp"

#include <functional>
#include <memory>
#include <vector>

namespace troupe::actors::kserve {

/// One inference on its way: asks the backend and turns what comes back into responses, of which
/// exactly one is the last. Belongs to one protocol's connection; only its inbox is shared.
class call {
public:
  /// Checks the request and finds its model.
  /// @param wake called from any thread when take() has something new
  /// @errors as find_ready, check_request and to_text_request
  [[nodiscard]] static outcome<std::unique_ptr<call>>
  open(std::shared_ptr<service> around, infer_request request, std::function<void()> wake);
  /// Abandons what has not ended.
  ~call();
  call(const call&) = delete;
  call& operator=(const call&) = delete;

  void begin();
  /// The caller carries one response: several are an error, which take() then says.
  void expect_one() noexcept { one_ = true; }
  /// The responses that have come since the last call. Behind the one with `last` none follows.
  [[nodiscard]] std::vector<infer_response> take();
  /// The client has gone: the request ends, nothing comes any more.
  void abandon();

  /// Whether there may be several responses: a method that carries one refuses then.
  /// Of a backend that takes tensors nobody knows before.
  [[nodiscard]] bool many() const noexcept { return text_.stream && !tensors(); }
  [[nodiscard]] bool ended() const noexcept { return ended_; }
  /// Whether the last of what take() gave is no response of the backend, but the end of them, and
  /// the client did not ask to hear of it: `triton_enable_empty_final_response`.
  [[nodiscard]] bool hides_end() const noexcept { return hides_end_; }
  [[nodiscard]] const infer_request& request() const noexcept { return request_; }

private:
  call(std::shared_ptr<service> around, infer_request request, model_view model, text_request text,
       std::function<void()> wake);
  [[nodiscard]] bool tensors() const noexcept { return text_.request.tensors != nullptr; }
  [[nodiscard]] infer_response respond(const response_part& part) const;
  void take_text(response_part part, std::vector<infer_response>& all);
  void take_tensors(response_part part, std::vector<infer_response>& all);
  [[nodiscard]] bool wants_empty_end() const;
  void keep_one(std::vector<infer_response>& all);
  [[nodiscard]] infer_response blank() const;
  [[nodiscard]] outcome<void> place(std::vector<tensor>& outputs) const;

  std::shared_ptr<service> around_;
  std::shared_ptr<void> presence_;
  infer_request request_;
  model_view model_;
  text_request text_;
  std::shared_ptr<inbox> inbox_;
  std::weak_ptr<choice_sink> sink_;
  response_part whole_;
  /// Of a caller that carries one response: what has come, and how many.
  infer_response kept_;
  std::size_t responses_ = 0;
  bool one_ = false;
  bool hides_end_ = false;
  bool ended_ = false;
};

} // namespace troupe::actors::kserve
