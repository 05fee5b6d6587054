#pragma once

#include "actors/backend/custom_queue.hpp"
#include "troupe/actors/backend_api.hpp"
#include "troupe/actors/inference.hpp"
#include "troupe/config/triton.hpp"

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace troupe::actors {

/// One call of execute, until the last of its requests has ended.
struct custom_execution {
  time_point began;
  std::uint32_t batch_size = 0;
  std::atomic<std::size_t> open = 0;
  /// One of them ended well.
  std::atomic<bool> good = false;
};

/// The way back of one request, over the sink of its edge. What does not fit what the model
/// declares ends the request with an error that names it. Thread-safe.
class custom_exchange final : public backends::exchange {
public:
  custom_exchange(std::shared_ptr<const config::triton_model> model, custom_job job,
                  std::shared_ptr<custom_execution> within)
      : model_{std::move(model)}, request_{std::move(job.request)}, sink_{std::move(job.sink)},
        within_{std::move(within)} {}
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
  void leave(bool good);
  [[nodiscard]] result<void> check(const backends::response& what) const;

  std::shared_ptr<const config::triton_model> model_;
  inference_request_ptr request_;
  response_sink_ptr sink_;
  std::shared_ptr<custom_execution> within_;
  mutable std::mutex mutex_;
  bool ended_ = false;
};
using custom_ways = std::vector<std::shared_ptr<custom_exchange>>;

/// The ways back of a batch, of those requests that are still wanted.
[[nodiscard]] custom_ways open_ways(const std::shared_ptr<const config::triton_model>& model,
                                    custom_batch jobs);
/// Ends what execute has left without an answer: with its error, or, of a model that is not
/// decoupled, because there is none.
void close_ways(const custom_ways& ways, const config::triton_model& model,
                const result<void>& done);

} // namespace troupe::actors
