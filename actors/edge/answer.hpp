#pragma once

#include "actors/edge/exchange.hpp"
#include "actors/edge/openai_request.hpp"
#include "actors/edge/openai_response.hpp"
#include "actors/edge/sink.hpp"
#include "actors/front_desk.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace troupe::actors {

/// One generation on its way to a client: asks the backend, collects the parts of all choices and
/// turns them into OpenAI's objects. Belongs to the edge's thread; only its inbox is shared.
class answer final : public exchange {
public:
  struct origin {
    /// The part of the id behind "cmpl-" or "chatcmpl-".
    std::string id;
    time_point arrival;
    std::shared_ptr<metrics> numbers;
    std::shared_ptr<kserve::statistics> counts;
    /// Called from any thread when take() has something new.
    std::function<void()> wake;
    /// Of front_desk::open_answer(): keeps a drain waiting.
    std::shared_ptr<void> presence;
  };

  answer(api_request request, const model_entry& model, origin from);
  /// Abandons what has not ended.
  ~answer() override;
  answer(const answer&) = delete;
  answer& operator=(const answer&) = delete;

  /// Sends one execute per choice.
  void begin() override;

  [[nodiscard]] output take() override;

private:
  void take_part(std::size_t choice, response_part part, output& out);
  void abandon();

  api_request request_;
  backend_actor backend_;
  std::shared_ptr<const void> lease_;
  kserve::statistics::key counted_as_;
  origin from_;
  answer_head head_;
  std::shared_ptr<inbox> inbox_;
  std::vector<std::weak_ptr<choice_sink>> sinks_;
  std::vector<response_part> choices_;
  std::vector<bool> begun_;
  std::size_t open_;
  bool started_ = false;
};

} // namespace troupe::actors
