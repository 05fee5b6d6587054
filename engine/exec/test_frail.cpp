// Test support: a library of executors in the place of libtroupe_cuda.so, for machines without a
// GPU. Its device is the CPU, and breaks for the process at the next step once there is a file
// "break" in the folder of caches: as a GPU does at an illegal address.
#include "engine/exec/collective.hpp"
#include "engine/exec/cpu_executor.hpp"
#include "engine/exec/plugin.hpp"

#include <atomic>

namespace troupe::engine {

namespace {

std::atomic<bool> broken{false};
std::atomic<int> users{0};

class frail_executor final : public executor {
public:
  explicit frail_executor(executor_options options)
      : sign_{options.cache_dir / "break"}, group_{options.group}, run_{std::move(options)} {
    ++users;
  }
  ~frail_executor() override { --users; }

  [[nodiscard]] result<memory_forecast> foresee(std::uint64_t promised) override {
    return run_.foresee(promised);
  }
  [[nodiscard]] result<void> load(const load_progress& progress) override {
    return run_.load(progress);
  }
  [[nodiscard]] const executor_description& describe() const override { return run_.describe(); }
  [[nodiscard]] result<void> prepare(const step_batch& step) override { return run_.prepare(step); }
  [[nodiscard]] result<void> launch(step_id step) override {
    if (std::filesystem::remove(sign_))
      broken = true;
    if (!broken)
      return run_.launch(step);
    const error why{errc::internal, "the device is broken"};
    if (group_)
      group_->abort_for_me(why);
    return fail(why);
  }
  [[nodiscard]] result<void> sample(step_id step) override { return run_.sample(step); }
  [[nodiscard]] result<step_result> collect(step_id step) override { return run_.collect(step); }
  void reset() override { run_.reset(); }
  [[nodiscard]] bool spoiled() const noexcept override { return broken; }

private:
  std::filesystem::path sign_;
  std::shared_ptr<collective> group_;
  cpu_executor run_;
};

result<std::unique_ptr<executor>> make(executor_options options, std::string_view) {
  if (broken)
    return fail(users > 0 ? errc::busy : errc::internal, "the device is broken for this process");
  return std::make_unique<frail_executor>(std::move(options));
}

bool is_lost_device(std::string_view) { return broken && users == 0; }

} // namespace

} // namespace troupe::engine

extern "C" const troupe::engine::executor_plugin* troupe_executor_plugin() {
  static const troupe::engine::executor_plugin plugin{.api_version =
                                                          troupe::engine::plugin_api_version,
                                                      .build = troupe::engine::plugin_build(),
                                                      .make = troupe::engine::make,
                                                      .is_lost = troupe::engine::is_lost_device};
  return &plugin;
}
