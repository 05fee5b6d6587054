// Which steps run in lanes: reckoned, so without a GPU.
#include "engine/exec/cuda/lane_plan.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <vector>

using namespace troupe::engine::cuda;

namespace {

/// Llama 3 8B in bf16.
const lane_model llama8b = [] {
  constexpr double layers = 32;
  constexpr double elements =
      layers * (4096.0 * 6144 + 4096.0 * 4096 + 4096.0 * 28672 + 14336.0 * 4096);
  return lane_model{.layers = layers,
                    .weight_bytes = 2 * elements,
                    .row_flops = 2 * elements,
                    .row_bytes = layers * 245e3,
                    .position_bytes = 131072,
                    .pair_flops = layers * 4 * 4096};
}();

constexpr std::array<int, 7> offered{16, 24, 32, 48, 64, 80, 96};

lane_load load_of(double answers, double context, double prompts, double length) {
  return {answers, answers * context, prompts, prompts * length / 2};
}

} // namespace

TEST_CASE("one lane takes about what steps of one lane were measured to take") {
  // Milliseconds of tests/bench/bench_loads.cpp, less the head.
  CHECK(reckon_one_lane(llama8b, load_of(0, 0, 512, 0)) == Approx(12.1e-3).epsilon(0.1));
  CHECK(reckon_one_lane(llama8b, load_of(0, 0, 2048, 0)) == Approx(45.5e-3).epsilon(0.05));
  CHECK(reckon_one_lane(llama8b, load_of(0, 0, 8192, 0)) == Approx(176e-3).epsilon(0.05));
  const double answers = reckon_one_lane(llama8b, load_of(256, 1024, 0, 0));
  CHECK(answers - reckon_one_lane(llama8b, load_of(256, 0, 0, 0)) == Approx(11.7e-3).epsilon(0.05));
}

TEST_CASE("steps that have much of both kinds run in lanes") {
  // A backlog of 2048/128, and of 1000/1000.
  CHECK(choose_lanes(llama8b, load_of(250, 2100, 4600, 2048), offered) != 0);
  CHECK(choose_lanes(llama8b, load_of(256, 1500, 300, 1000), offered) != 0);
  // The more there is to read, the more multiprocessors read.
  CHECK(choose_lanes(llama8b, load_of(256, 1500, 300, 1000), offered) >
        choose_lanes(llama8b, load_of(250, 2100, 4600, 2048), offered));
}

TEST_CASE("steps with little to read, or of one kind, run in one lane") {
  CHECK(choose_lanes(llama8b, load_of(256, 2000, 0, 0), offered) == 0);
  CHECK(choose_lanes(llama8b, load_of(0, 0, 8192, 1024), offered) == 0);
  CHECK(choose_lanes(llama8b, load_of(8, 500, 2048, 512), offered) == 0);
  CHECK(choose_lanes(llama8b, load_of(250, 2100, 4600, 2048), {}) == 0);
}

TEST_CASE("lanes are reckoned as the slower of two, and as what they share") {
  const lane_load load = load_of(250, 2100, 4600, 2048);
  double before_answers = 1e9, before_prompts = 0;
  for (const int count : offered) {
    CAPTURE(count);
    const lane_times times = reckon_lanes(llama8b, load, count);
    CHECK(times.answers < before_answers);
    CHECK(times.prompts > before_prompts);
    CHECK(times.step() >= times.answers);
    CHECK(times.step() >= times.prompts);
    CHECK(times.step() >= times.shared);
    // Weights are read twice, and the card has the power that it has.
    CHECK(times.shared > 0.8 * reckon_one_lane(llama8b, load));
    before_answers = times.answers;
    before_prompts = times.prompts;
  }
}

TEST_CASE("lanes that win by little are not taken") {
  // Power that reading took whole would leave nothing to win.
  const lane_load load = load_of(250, 2100, 4600, 2048);
  CHECK(choose_lanes(llama8b, load, offered, {.reading_power = 1}) == 0);
  CHECK(choose_lanes(llama8b, load, offered, {.reading_power = 0.2}) != 0);
}
