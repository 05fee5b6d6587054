// The sampler of the device against the CPU's: equal logits give equal tokens. Needs a GPU.
#include "engine/exec/cuda/likelihood.hpp"
#include "engine/exec/cuda/runtime.hpp"
#include "engine/exec/cuda/sampling.hpp"
#include "engine/exec/likelihood.hpp"
#include "engine/exec/sampler.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::engine::cuda;

namespace {

template <class T>
device_buffer on_device(const std::vector<T>& from) {
  auto made = device_buffer::make(from.size() * sizeof(T), "test");
  REQUIRE(made);
  REQUIRE(upload(made->data(), from.data(), from.size() * sizeof(T), nullptr));
  return std::move(*made);
}

float uniform(splitmix64& random) { return static_cast<float>(random.below(1 << 24)) / (1 << 24); }

/// Random parameters, with the corners among them.
sampling_params random_params(splitmix64& random) {
  sampling_params p;
  constexpr float temperatures[] = {0, 0.005F, 0.3F, 0.7F, 1, 1.7F};
  constexpr std::int32_t ks[] = {-1, 0, 1, 2, 40, 1000, 3000};
  constexpr float ps[] = {1, 0.999F, 0.9F, 0.5F, 0.01F};
  constexpr float least[] = {0, 0, 0.001F, 0.05F, 1};
  p.temperature = temperatures[random.below(6)];
  p.top_k = ks[random.below(7)];
  p.top_p = ps[random.below(5)];
  p.min_p = least[random.below(5)];
  p.seed = random();
  p.choice = static_cast<std::uint32_t>(random.below(3));
  return p;
}

/// As the executor does it.
sampling_row row_of(const sampling_params& p, std::uint32_t position, std::uint32_t vocabulary) {
  sampling_row row{.seed = p.seed, .choice = p.choice, .position = position};
  if (p.temperature < greedy_temperature)
    return row;
  row.temperature = static_cast<double>(std::max(p.temperature, least_temperature));
  row.top_k = p.top_k > 0 && static_cast<std::uint32_t>(p.top_k) < vocabulary ? p.top_k : 0;
  row.top_p = p.top_p;
  row.min_p = p.min_p;
  row.bounded = row.top_k > 0 || row.top_p < 1 || row.min_p > 0 ? 1 : 0;
  return row;
}

/// What leads among each so many logits of each row.
std::vector<kernels::cuda::row_leader> leaders_of(const std::vector<float>& logits,
                                                  std::size_t width) {
  constexpr auto each = static_cast<std::size_t>(kernels::cuda::led_columns);
  std::vector<kernels::cuda::row_leader> told;
  for (std::size_t row = 0; row < logits.size(); row += width)
    for (std::size_t first = 0; first < width; first += each) {
      const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row + first);
      const auto end = begin + static_cast<std::ptrdiff_t>(std::min(each, width - first));
      const auto most = std::max_element(begin, end);
      const bool finite = std::all_of(begin, end, [](float x) { return std::isfinite(x); });
      told.push_back({*most, finite ? static_cast<std::int32_t>(most - begin) +
                                          static_cast<std::int32_t>(first)
                                    : -1});
    }
  return told;
}

} // namespace

TEST_CASE("the device samples as the CPU does") {
  splitmix64 random{11};
  for (const std::int32_t vocabulary : {3, 64, 300, 5000, 32000, 151936}) {
    const std::size_t rows = vocabulary > 100000 ? 48 : 96;
    const auto width = static_cast<std::size_t>(vocabulary);
    std::vector<float> logits(rows * width);
    std::vector<sampling_params> params;
    std::vector<sampling_row> how;
    for (std::size_t r = 0; r < rows; ++r) {
      // Peaked and flat rows, and some with many equal logits.
      const float spread = r % 3 == 0 ? 8.0F : 1.5F;
      for (std::size_t i = 0; i < width; ++i) {
        const float x = (uniform(random) + uniform(random) + uniform(random) - 1.5F) * spread;
        logits[r * width + i] = r % 4 == 1 ? std::round(x * 4) / 4 : x;
      }
      params.push_back(random_params(random));
      how.push_back(row_of(params.back(), static_cast<std::uint32_t>(10 + r),
                           static_cast<std::uint32_t>(vocabulary)));
    }
    logits[2 * width] = std::numeric_limits<float>::quiet_NaN();
    logits[7 * width + width - 1] = std::numeric_limits<float>::infinity();
    const device_buffer device_logits = on_device(logits);
    const device_buffer device_how = on_device(how);
    const device_buffer scratch = on_device(std::vector<sampling_scratch>(rows));
    const device_buffer leaders =
        on_device(std::vector<kernels::cuda::row_leader>(rows * most_vocabulary_parts));
    const device_buffer sampled = on_device(std::vector<std::int32_t>(rows, -7));
    const device_buffer outcome = on_device(std::vector<std::int32_t>(rows, -7));
    const sampling_args args{.logits = device_logits.as<float>(),
                             .stride = vocabulary,
                             .rows = static_cast<std::int64_t>(rows),
                             .vocabulary = vocabulary,
                             .how = device_how.as<sampling_row>(),
                             .scratch = scratch.as<sampling_scratch>(),
                             .leaders = leaders.as<kernels::cuda::row_leader>(),
                             .any_random = true,
                             .any_bounded = true,
                             .sampled = sampled.as<std::int32_t>(),
                             .outcome = outcome.as<std::int32_t>()};
    const auto done = sample_rows(args, nullptr);
    REQUIRE(done);
    std::vector<std::int32_t> chosen(rows), kept(rows);
    REQUIRE(download(chosen.data(), outcome.data(), rows * 4, nullptr));
    REQUIRE(download(kept.data(), sampled.data(), rows * 4, nullptr));
    const auto ran = wait(stream_ref{nullptr});
    CAPTURE(ran ? "" : ran.error().note);
    REQUIRE(ran);
    // A row alone is shared by more blocks.
    for (std::size_t r = 0; r < rows; r += 5) {
      auto alone = args;
      alone.rows = 1;
      alone.logits += r * width;
      alone.how += r;
      std::int32_t found = -7;
      REQUIRE(sample_rows(alone, nullptr));
      REQUIRE(download(&found, outcome.data(), sizeof found, nullptr));
      REQUIRE(wait(stream_ref{nullptr}));
      CAPTURE(vocabulary, r);
      CHECK(found == chosen[r]);
    }
    // So with leaders that the product has told.
    const auto told = leaders_of(logits, width);
    const device_buffer device_told = on_device(told);
    auto led = args;
    led.leaders = device_told.as<kernels::cuda::row_leader>();
    led.leader_count = static_cast<std::int32_t>(told.size() / rows);
    std::vector<std::int32_t> chosen_led(rows);
    REQUIRE(sample_rows(led, nullptr));
    REQUIRE(download(chosen_led.data(), outcome.data(), rows * 4, nullptr));
    REQUIRE(wait(stream_ref{nullptr}));
    CHECK(chosen_led == chosen);
    sampler judge;
    for (std::size_t r = 0; r < rows; ++r) {
      const auto& p = params[r];
      CAPTURE(vocabulary, r, p.temperature, p.top_k, p.top_p, p.min_p);
      const auto wanted =
          judge.sample({logits.data() + r * width, width}, p, static_cast<std::uint32_t>(10 + r));
      CHECK(chosen[r] == (wanted ? *wanted : -1));
      CHECK(kept[r] == (wanted ? *wanted : 0));
    }
  }
}

TEST_CASE("the device samples and ranks tokens as the CPU does") {
  splitmix64 random{23};
  for (const std::int32_t vocabulary : {3, 64, 5000, 151936}) {
    const std::size_t rows = 40;
    const auto width = static_cast<std::size_t>(vocabulary);
    std::vector<float> logits(rows * width);
    std::vector<sampling_row> how(rows);
    std::vector<std::int32_t> chosen(rows);
    for (std::size_t r = 0; r < rows; ++r) {
      // Every fourth row has many equals.
      for (std::size_t i = 0; i < width; ++i) {
        const float x = (uniform(random) + uniform(random) - 1) * 8;
        logits[r * width + i] = r % 4 == 1 ? std::round(x * 4) / 4 : x;
      }
      how[r].logprobs = static_cast<std::int32_t>(r % 22) - 1;
      chosen[r] = static_cast<std::int32_t>(random.below(width));
    }
    const device_buffer device_logits = on_device(logits);
    const device_buffer device_how = on_device(how);
    const device_buffer outcome = on_device(chosen);
    const device_buffer likelihoods = on_device(std::vector<device_likelihood>(rows));
    REQUIRE(rank_rows({.logits = device_logits.as<float>(),
                       .stride = vocabulary,
                       .rows = static_cast<std::int64_t>(rows),
                       .vocabulary = vocabulary,
                       .how = device_how.as<sampling_row>(),
                       .outcome = outcome.as<std::int32_t>(),
                       .likelihoods = likelihoods.as<device_likelihood>()},
                      nullptr));
    std::vector<device_likelihood> got(rows);
    REQUIRE(download(got.data(), likelihoods.data(), rows * sizeof(device_likelihood), nullptr));
    REQUIRE(wait(stream_ref{nullptr}));
    for (std::size_t r = 0; r < rows; ++r) {
      if (how[r].logprobs < 0)
        continue;
      CAPTURE(vocabulary, r, how[r].logprobs);
      const auto wanted =
          likelihood_of({logits.data() + r * width, width}, chosen[r], how[r].logprobs);
      const auto here = to_logprobs(got[r], chosen[r], how[r].logprobs, vocabulary);
      CHECK(here.rank == wanted.rank);
      CHECK(here.chosen.logprob == Approx(wanted.chosen.logprob).margin(1e-5));
      REQUIRE(here.top.size() == wanted.top.size());
      for (std::size_t i = 0; i < here.top.size(); ++i) {
        CHECK(here.top[i].token == wanted.top[i].token);
        CHECK(here.top[i].logprob == Approx(wanted.top[i].logprob).margin(1e-5));
      }
    }
  }
}
