#pragma once

#include "engine/exec/cuda/runtime.hpp"
#include "engine/exec/executor.hpp"
#include "tests/bench/load_parts.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

/// What the benches of the GPU share.
namespace troupe::bench {

/// The value, or the end of the bench with the error's words.
template <class T>
T must(result<T> got) {
  if (!got) {
    fmt::print(stderr, "bench: {}\n", to_string(got.error()));
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>)
    return std::move(*got);
}

inline double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Seconds that the device takes for what `enqueue` enqueues.
template <class Enqueue>
double device_seconds(engine::cuda::stream_ref on, const Enqueue& enqueue) {
  namespace cuda = engine::cuda;
  const auto begin = must(cuda::make_event(true));
  const auto end = must(cuda::make_event(true));
  must(cuda::record(begin, on));
  enqueue();
  must(cuda::record(end, on));
  must(cuda::wait(end));
  return must(cuda::milliseconds_between(begin, end)) / 1e3;
}

/// Bytes per second of reading 4 GiB of random numbers.
inline double read_bandwidth() {
  namespace cuda = engine::cuda;
  constexpr std::int64_t bytes = std::int64_t{4} << 30U;
  const auto memory = must(cuda::device_buffer::make(bytes, "probe"));
  const auto sink = must(cuda::device_buffer::make(256, "probe"));
  must(kernels::cuda::fill_random({.out = memory.data(), .count = bytes / 2, .seed = 1, .sigma = 1},
                                  nullptr));
  std::vector<double> times;
  for (int i = 0; i < 8; ++i)
    times.push_back(device_seconds(nullptr, [&] {
      must(kernels::cuda::read_probe(memory.data(), bytes, sink.as<std::uint32_t>(), nullptr));
    }));
  return static_cast<double>(bytes) / median(times);
}

/// config.json of the models of random weights.
inline const std::map<std::string, std::string_view> configs{
    {"llama8b", R"({"architectures":["LlamaForCausalLM"],"hidden_size":4096,
      "intermediate_size":14336,"num_hidden_layers":32,"num_attention_heads":32,
      "num_key_value_heads":8,"vocab_size":128256,"max_position_embeddings":131072,
      "rope_theta":500000,"rms_norm_eps":1e-5,"torch_dtype":"bfloat16"})"},
    {"qwen06b", R"({"architectures":["Qwen3ForCausalLM"],"hidden_size":1024,
      "intermediate_size":3072,"num_hidden_layers":28,"num_attention_heads":16,
      "num_key_value_heads":8,"head_dim":128,"vocab_size":151936,"max_position_embeddings":40960,
      "tie_word_embeddings":true,"rope_theta":1000000,"torch_dtype":"bfloat16"})"}};

/// What stands between commas.
inline std::vector<std::string> names(const std::string& text) {
  std::vector<std::string> found;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    found.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return found;
}

/// "1,8" as numbers.
inline std::vector<std::uint32_t> numbers(const std::string& text) {
  std::vector<std::uint32_t> found;
  for (const std::string& name : names(text))
    found.push_back(static_cast<std::uint32_t>(std::atoi(name.c_str())));
  return found;
}

/// So many random numbers of 16 bits, no two buffers alike.
inline engine::cuda::device_buffer random_buffer(std::int64_t count, double sigma = 1) {
  static std::uint64_t seed = 1;
  auto made = must(engine::cuda::device_buffer::make(static_cast<std::size_t>(count) * 2, "bench"));
  must(kernels::cuda::fill_random(
      {.out = made.data(), .count = count, .seed = seed++, .sigma = sigma}, nullptr));
  return made;
}

/// All that a step needs of the host until it is collected.
inline void begin_step(engine::executor& run, const engine::step_batch& step) {
  must(run.prepare(step));
  must(run.launch(step.id));
  must(run.sample(step.id));
}

inline engine::executor_options options_of(const std::filesystem::path& folder) {
  engine::executor_options options;
  options.model_dir = folder;
  options.load_format = "dummy";
  options.max_num_seqs = 256;
  options.max_num_batched_tokens = 8192;
  options.max_model_len = 16384;
  return options;
}

} // namespace troupe::bench
