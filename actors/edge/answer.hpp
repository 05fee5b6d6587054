#pragma once

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
class answer {
public:
  struct origin {
    /// The part of the id behind "cmpl-" or "chatcmpl-".
    std::string id;
    time_point arrival;
    std::shared_ptr<metrics> numbers;
    /// Called from any thread when take() has something new.
    std::function<void()> wake;
    /// Of front_desk::open_answer(): keeps a drain waiting.
    std::shared_ptr<void> presence;
  };

  answer(api_request request, const model_entry& model, origin from);
  /// Abandons what has not ended.
  ~answer();
  answer(const answer&) = delete;
  answer& operator=(const answer&) = delete;

  /// Sends one execute per choice.
  void begin();

  struct output {
    /// The answer failed before anything was sent: the status to send instead.
    std::optional<api_error> refused;
    /// Events of a stream, or the whole body.
    std::string bytes;
    /// Nothing follows.
    bool end = false;
    /// It ended in an error event.
    bool broken = false;
  };
  /// What there is to send now.
  [[nodiscard]] output take();

  [[nodiscard]] bool stream() const noexcept { return request_.stream; }

private:
  void take_part(std::size_t choice, response_part part, output& out);
  void abandon();

  api_request request_;
  backend_actor backend_;
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
