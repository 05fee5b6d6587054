// What an error of the device leaves behind. It spoils the device for the whole process, so this
// runs alone (scripts/device, step spoiled). Needs a GPU.
#include "engine/exec/cuda/device_use.hpp"
#include "engine/exec/cuda/random_models.hpp"
#include "kernels/cuda/ops.hpp"

using namespace troupe;
using namespace troupe::engine;

namespace {

/// Tokens of a prompt; the last is -1 if a step failed.
std::vector<token_id> greedy(executor& run) {
  run.reset();
  test::step_driver drive{run};
  return test::generate_alone(drive, test::prompt_of(20, 1), test::sampling_at(), 12);
}

} // namespace

TEST_CASE("an error of the device spoils who uses it, and takes the device from the process",
          "[.][spoiled]") {
  const test::temporary_folder folder;
  folder.write("config.json", test::wide_model);
  executor_options options = test::random_options(folder, "float32");
  options.num_blocks = 64;
  auto first = test::load_cuda(options);
  auto second = test::load_cuda(options);
  const auto wanted = greedy(*first);
  REQUIRE(wanted.back() >= 0);
  CHECK(greedy(*second) == wanted);
  CHECK_FALSE(first->spoiled());

  // Reads where nobody has memory.
  static_cast<void>(kernels::cuda::read_probe(reinterpret_cast<const void*>(0x100), 4096,
                                              reinterpret_cast<std::uint32_t*>(0x100), nullptr));
  CHECK(greedy(*first).back() == -1);
  CHECK(first->spoiled());
  CHECK(second->spoiled());
  CHECK_FALSE(cuda::is_lost(0));
  const auto early = cuda::open_device(0);
  REQUIRE(!early);
  CHECK(early.error().code == errc::busy);
  CHECK(early.error().note.find("2 there use it still") != std::string::npos);
  first.reset();
  CHECK(cuda::open_device(0).error().code == errc::busy);
  second.reset();

  const auto late = cuda::open_device(0);
  REQUIRE(!late);
  CHECK(late.error().code == errc::internal);
  CHECK(late.error().note.find("another process can use it") != std::string::npos);
  CHECK(cuda::is_lost(0));
}
