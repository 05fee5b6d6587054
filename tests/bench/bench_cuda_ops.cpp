#include "engine/exec/cuda/runtime.hpp"
#include "engine/exec/cuda/sampling.hpp"
#include "engine/exec/cuda/step_graphs.hpp"
#include "engine/exec/cuda/step_inputs.hpp"
#include "kernels/cuda/matmul.hpp"
#include "tests/bench/cuda_bench.hpp"
#include "tests/bench/cuda_swap.hpp"
#include "tests/bench/layer_products.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string_view>
#include <vector>

// Each operation of a step of Llama-3.1-8B's shape on its own, in bf16: microseconds, the bytes
// that it has to move over that time, and its share of the read bandwidth measured in the same run.
// Operations stand many times in a CUDA graph, over rotating weights; medians of replays. Of more
// than 256 rows, which no decode step has, only products: the rate of arithmetic too.
//
//   bench_cuda_ops [ROWS...]      default 1 32 256 512 2048 8192
//   bench_cuda_ops swap           KV blocks to host memory and back, alone
//   bench_cuda_ops limits         what bounds this card in this hour: reading, and products
namespace {

using namespace troupe;
using namespace troupe::bench;
using namespace troupe::engine::cuda;
namespace ops = troupe::kernels::cuda;

constexpr std::int64_t hidden = 4096;
constexpr std::int64_t inner = 14336;
constexpr std::int64_t vocabulary = 128256;
constexpr std::int32_t heads = 32;
constexpr std::int32_t kv_heads = 8;
constexpr std::int32_t dim = 128;
constexpr std::uint32_t block_size = 16;
/// Of a decode step, and of all.
constexpr std::int64_t most_rows = 256;
constexpr std::int64_t most_prompt_rows = 8192;
constexpr std::uint32_t longest = 2048;

/// Times operations and prints a line for each.
class op_bench {
public:
  op_bench() : stream_{must(make_stream())}, bandwidth_{read_bandwidth()} {
    fmt::print("ops: read {:.2f} TB/s\n", bandwidth_ / 1e12);
  }

  engine::cuda::stream_ref on() const { return stream_.get(); }

  /// `pass` enqueues the operation `count` times; `bytes` are those of one.
  double run(std::string_view name, std::int64_t rows, int count, double bytes,
             const std::function<result<void>()>& pass) {
    const engine::cuda::graph_key key{.rows = ++key_};
    std::vector<double> times;
    for (int i = 0; i < 9; ++i) {
      const double all = device_seconds(on(), [&] { must(graphs_.run(key, pass, on())); });
      if (i >= 3)
        times.push_back(all / count);
    }
    const double time = median(times);
    fmt::print("ops: {:3} rows {:<22} {:8.2f} us, {:.2f} TB/s, {:.2f} of the bandwidth\n", rows,
               name, time * 1e6, bytes / time / 1e12, bytes / time / bandwidth_);
    std::fflush(stdout);
    return time;
  }

private:
  stream stream_;
  double bandwidth_;
  step_graphs graphs_;
  std::uint32_t key_ = 0;
};

struct shape {
  std::string_view name;
  std::int64_t n;
  std::int64_t k;
  int copies;
  kernels::dtype out_type = kernels::dtype::bf16;
};

using own_product = result<void> (*)(const ops::ordered_matmul_args&, stream_ref);

/// One product of a layer, by everything that there is.
class product_bench {
public:
  product_bench(op_bench& bench, const shape& s, std::int64_t rows_max)
      : bench_{bench}, shape_{s}, a_{random_buffer(rows_max * s.k)},
        out_{must(device_buffer::make(static_cast<std::size_t>(rows_max * s.n) * 4, "out"))} {
    for (int i = 0; i < s.copies; ++i) {
      matrices_.push_back(random_buffer(s.n * s.k, 1 / std::sqrt(static_cast<double>(s.k))));
      weights_.push_back(matrices_.back().data());
    }
    must(wait(stream_ref{nullptr}));
  }

  void run(ops::matmul_library& library, std::int64_t rows) {
    rows_ = rows;
    ops::matmul_args args{.a = a_.data(),
                          .lda = shape_.k,
                          .w = weights_[0],
                          .out = out_.data(),
                          .ldo = shape_.n,
                          .m = rows,
                          .n = shape_.n,
                          .k = shape_.k,
                          .out_type = shape_.out_type};
    const bool sums = rows > most_rows && shape_.n == hidden;
    if (sums) {
      args.add = true;
      args.out_type = kernels::dtype::f32;
    }
    const bool wide = ops::shortcuts_taken().wide;
    if (rows > most_rows) {
      // What it is to be compared with.
      ops::shortcuts_taken().wide = false;
      time_library(library, args);
      ops::shortcuts_taken().wide = wide;
    } else {
      time_library(library, args);
    }
    const ops::ordered_matmul_args own = ops::plain(args);
    if (rows <= ops::max_skinny_rows)
      time("skinny", own, ops::skinny_matmul);
    if (rows <= ops::max_streamed_rows)
      time("streamed", own, ops::streamed_matmul);
    if (rows > ops::max_streamed_rows && ops::takes_wide(own))
      time("wide", own, ops::wide_matmul);
    if (rows <= ops::max_streamed_rows || shape_.n != 2 * inner)
      return;
    ops::ordered_matmul_args gated = own;
    gated.n = gated.ldo = inner;
    time("wide, gated", gated, ops::wide_gated_matmul);
  }

private:
  /// `multiply` takes a matrix of weights.
  template <class Multiply>
  void time_with(std::string_view kind, Multiply multiply) {
    const std::size_t count = rows_ > most_rows ? weights_.size() : 4 * weights_.size();
    const auto pass = [&]() -> result<void> {
      for (std::size_t i = 0; i < count; ++i)
        if (auto done = multiply(weights_[i % weights_.size()]); !done)
          return done;
      return {};
    };
    const double elements =
        static_cast<double>(shape_.n * shape_.k + rows_ * (shape_.n + shape_.k));
    const double time = bench_.run(fmt::format("{} {}", shape_.name, kind), rows_,
                                   static_cast<int>(count), 2 * elements, pass);
    if (rows_ > most_rows)
      fmt::print("ops: {:3} rows {} {}: {:.0f} TFLOP/s\n", rows_, shape_.name, kind,
                 2e-12 * static_cast<double>(rows_ * shape_.n * shape_.k) / time);
  }
  void time_library(ops::matmul_library& library, ops::matmul_args args) {
    must(library.tune(args, weights_, bench_.on()));
    time_with(fmt::format("by {}", library.kernel_of(args)), [&](const void* w) {
      args.w = w;
      return library.run(args, bench_.on());
    });
  }
  void time(std::string_view kind, ops::ordered_matmul_args args, own_product multiply) {
    time_with(kind, [&](const void* w) {
      args.w = w;
      return multiply(args, bench_.on());
    });
  }

  op_bench& bench_;
  shape shape_;
  device_buffer a_;
  device_buffer out_;
  std::vector<device_buffer> matrices_;
  std::vector<const void*> weights_;
  std::int64_t rows_ = 0;
};

void products(op_bench& bench, const std::vector<std::int64_t>& all_rows) {
  constexpr std::size_t workspace_bytes = std::size_t{64} << 20U;
  const auto workspace = must(device_buffer::make(workspace_bytes, "workspace"));
  auto library = must(ops::matmul_library::make(workspace.data(), workspace_bytes));
  const std::int64_t rows_max = *std::max_element(all_rows.begin(), all_rows.end());
  for (const shape& s : {shape{"qkv", 6144, hidden, 8}, shape{"o", hidden, hidden, 8},
                         shape{"gate_up", 2 * inner, hidden, 4}, shape{"down", hidden, inner, 6},
                         shape{"lm_head", vocabulary, hidden, 2, kernels::dtype::f32}}) {
    // A step has logits of as many rows as it has sequences.
    const bool head = s.n == vocabulary;
    product_bench one{bench, s, head ? std::min(rows_max, most_rows) : rows_max};
    for (const std::int64_t rows : all_rows)
      if (!head || rows <= most_rows)
        one.run(library, rows);
  }
}

/// `count` times the same operation.
template <class Op>
std::function<result<void>()> times(int count, Op op) {
  return [=]() -> result<void> {
    for (int i = 0; i < count; ++i)
      if (auto done = op(); !done)
        return done;
    return {};
  };
}

void rows_of(op_bench& bench, std::int64_t rows) {
  const auto residual = random_buffer(2 * most_rows * hidden);
  const auto delta = random_buffer(most_rows * hidden);
  const auto weight = random_buffer(2 * hidden);
  const auto out = random_buffer(most_rows * inner);
  const auto both = random_buffer(most_rows * 2 * inner);
  must(wait(stream_ref{nullptr}));
  bench.run("rms_norm", rows, 64, static_cast<double>(rows * hidden * 12), times(64, [&] {
              return ops::rms_norm({.residual = residual.as<float>(),
                                    .residual_stride = hidden,
                                    .delta = delta.data(),
                                    .delta_stride = hidden,
                                    .weight = weight.as<float>(),
                                    .rows = rows,
                                    .cols = hidden,
                                    .out = out.data(),
                                    .out_stride = hidden},
                                   bench.on());
            }));
  bench.run("silu_mul", rows, 64, static_cast<double>(rows * inner * 6), times(64, [&] {
              return ops::silu_mul({.gate_up = both.data(),
                                    .stride = 2 * inner,
                                    .out = out.data(),
                                    .out_stride = inner,
                                    .rows = rows,
                                    .cols = inner},
                                   bench.on());
            }));
}

/// A decode step's inputs: `rows` sequences with `context` positions each, on blocks of their own.
host_inputs decode_inputs(const input_limits& limits, std::uint32_t rows, std::uint32_t context) {
  auto inputs = must(host_inputs::make(limits));
  const std::uint32_t blocks = longest / block_size;
  for (std::uint32_t i = 0; i < rows; ++i) {
    std::vector<block_id> table;
    for (std::uint32_t b = 0; b < (context + block_size - 1) / block_size; ++b)
      table.push_back(block_id{i * blocks + b});
    const std::uint32_t last = context - 1;
    inputs.add({.row_begin = static_cast<std::int32_t>(i),
                .rows = 1,
                .first_position = static_cast<std::int32_t>(last)},
               table);
    const std::uint64_t slot = value(table.back()) * std::uint64_t{block_size} + last % block_size;
    inputs.add_row({.position = static_cast<std::int32_t>(last),
                    .sequence = static_cast<std::int32_t>(i),
                    .slot = static_cast<std::int32_t>(slot)});
  }
  inputs.deal_decodes();
  return inputs;
}

void attention_of(op_bench& bench, std::uint32_t rows) {
  const input_limits limits{.rows = most_rows,
                            .sequences = most_rows,
                            .table_entries = most_rows * (longest / block_size),
                            .group = heads / kv_heads,
                            .kv_heads = kv_heads,
                            .dim = dim};
  const std::int64_t blocks = rows * (longest / block_size);
  const auto k = random_buffer(blocks * block_size * kv_heads * dim);
  const auto v = random_buffer(blocks * block_size * kv_heads * dim);
  const auto qkv = random_buffer(most_rows * (heads + 2 * kv_heads) * dim);
  const auto q = random_buffer(most_rows * heads * dim);
  const auto out = random_buffer(most_rows * heads * dim);
  const auto angles = random_buffer(2 * longest * dim / 2);
  const ops::kv_cache cache{.k = k.data(),
                            .v = v.data(),
                            .blocks = blocks,
                            .block_size = block_size,
                            .kv_heads = kv_heads,
                            .dim = dim};
  for (const std::uint32_t context : {128U, 1024U, 2048U}) {
    const auto inputs = decode_inputs(limits, rows, context);
    auto device = must(device_inputs::make(limits));
    must(device.send(inputs, bench.on()));
    must(wait(bench.on()));
    auto batch = device.batch_of(inputs);
    batch.attention.q = q.data();
    batch.attention.q_stride = heads * dim;
    batch.attention.heads = heads;
    batch.attention.cache = cache;
    batch.attention.rows = rows;
    batch.attention.batch = batch.batch;
    batch.attention.scale = 1.0F / std::sqrt(static_cast<float>(dim));
    batch.attention.out = out.data();
    batch.attention.out_stride = heads * dim;
    const double read = 4.0 * context * rows * kv_heads * dim;
    bench.run(fmt::format("attention at {}", context), rows, 32, read,
              times(32, [&] { return ops::attention(batch.attention, bench.on()); }));
    if (context != 128)
      continue;
    const double moved = 2.0 * rows * dim * (2 * heads + 4 * kv_heads);
    bench.run("rope_store", rows, 64, moved, times(64, [&] {
                return ops::rope_store({.qkv = qkv.data(),
                                        .qkv_stride = (heads + 2 * kv_heads) * dim,
                                        .heads = heads,
                                        .cache = cache,
                                        .batch = batch.batch,
                                        .rows = rows,
                                        .cos = angles.as<float>(),
                                        .sin = angles.as<float>(),
                                        .q = q.data(),
                                        .q_stride = heads * dim},
                                       bench.on());
              }));
  }
}

/// Prompts of one step: so many of `rows` tokens each, behind `past` that are stored.
struct prompt_load {
  std::uint32_t prompts;
  std::uint32_t past;
  std::uint32_t rows;
};

/// Attention of prompts, in tiles of 64 rows and of 128; the bandwidth in the line is without
/// meaning, so the rate of arithmetic is printed behind it.
void prompts_of(op_bench& bench, const prompt_load& load) {
  const std::uint32_t rows = load.prompts * load.rows;
  const std::uint32_t blocks = (load.past + load.rows) / block_size;
  const std::int64_t stored = std::int64_t{load.prompts} * (load.past + load.rows);
  for (const std::int32_t tile_rows : {ops::prefill_tile_rows, ops::wide_tile_rows}) {
    const input_limits limits{.rows = rows,
                              .sequences = load.prompts,
                              .table_entries = load.prompts * blocks,
                              .group = heads / kv_heads,
                              .kv_heads = kv_heads,
                              .dim = dim,
                              .prefill_rows = tile_rows};
    auto inputs = must(host_inputs::make(limits));
    for (std::uint32_t prompt = 0; prompt < load.prompts; ++prompt) {
      std::vector<block_id> table;
      for (std::uint32_t b = 0; b < blocks; ++b)
        table.push_back(block_id{prompt * blocks + b});
      inputs.add({.row_begin = static_cast<std::int32_t>(prompt * load.rows),
                  .rows = static_cast<std::int32_t>(load.rows),
                  .first_position = static_cast<std::int32_t>(load.past)},
                 table);
      for (std::uint32_t i = 0; i < load.rows; ++i)
        inputs.add_row({.position = static_cast<std::int32_t>(load.past + i),
                        .sequence = static_cast<std::int32_t>(prompt)});
    }
    inputs.order_prompts();
    auto device = must(device_inputs::make(limits));
    must(device.send(inputs, bench.on()));
    const auto k = random_buffer(stored * kv_heads * dim);
    const auto v = random_buffer(stored * kv_heads * dim);
    const auto q = random_buffer(std::int64_t{rows} * heads * dim);
    const auto out = random_buffer(std::int64_t{rows} * heads * dim);
    must(wait(bench.on()));
    must(wait(stream_ref{nullptr}));
    auto batch = device.batch_of(inputs);
    batch.attention.q = q.data();
    batch.attention.q_stride = heads * dim;
    batch.attention.heads = heads;
    batch.attention.cache = {.k = k.data(),
                             .v = v.data(),
                             .blocks = stored / block_size,
                             .block_size = block_size,
                             .kv_heads = kv_heads,
                             .dim = dim};
    batch.attention.rows = rows;
    batch.attention.batch = batch.batch;
    batch.attention.scale = 1.0F / std::sqrt(static_cast<float>(dim));
    batch.attention.out = out.data();
    batch.attention.out_stride = heads * dim;
    const double flops = 2.0 * rows * (2.0 * load.past + load.rows) * heads * dim;
    const double time =
        bench.run(fmt::format("prompts, tiles of {}", tile_rows), rows, 4, 0,
                  times(4, [&] { return ops::attention(batch.attention, bench.on()); }));
    fmt::print("ops: {:2} x {:4} rows behind {:4} in tiles of {:3}: {:.0f} TFLOP/s\n", load.prompts,
               load.rows, load.past, tile_rows, flops / time / 1e12);
  }
}

void sampling_of(op_bench& bench, std::uint32_t rows) {
  // Two bf16 numbers are a float of some size: what it is does not matter for the time.
  const auto logits = must(device_buffer::make(rows * vocabulary * 4, "logits"));
  must(ops::fill_random({.out = logits.data(),
                         .count = rows * vocabulary,
                         .type = kernels::dtype::f32,
                         .seed = 9,
                         .sigma = 2},
                        nullptr));
  const auto scratch = must(device_buffer::make(rows * sizeof(sampling_scratch), "scratch"));
  const auto leaders =
      must(device_buffer::make(rows * most_vocabulary_parts * sizeof(ops::row_leader), "leaders"));
  const auto tokens = must(device_buffer::make(rows * 8, "tokens"));
  const auto how = must(device_buffer::make(rows * sizeof(sampling_row), "sampling"));
  struct kind {
    std::string_view name;
    sampling_row row;
  };
  for (const kind& one : {kind{"sample greedy", {}}, kind{"sample at 1", {.temperature = 1}},
                          kind{"sample top_k 50 top_p .9",
                               {.temperature = 1, .top_k = 50, .top_p = 0.9F, .bounded = 1}}}) {
    const std::vector<sampling_row> all(rows, one.row);
    must(upload(how.data(), all.data(), rows * sizeof(sampling_row), bench.on()));
    must(wait(bench.on()));
    bench.run(one.name, rows, 8, 4.0 * rows * vocabulary, times(8, [&] {
                return sample_rows({.logits = logits.as<float>(),
                                    .stride = vocabulary,
                                    .rows = rows,
                                    .vocabulary = vocabulary,
                                    .how = how.as<sampling_row>(),
                                    .scratch = scratch.as<sampling_scratch>(),
                                    .leaders = leaders.as<ops::row_leader>(),
                                    .any_random = one.row.temperature != 0,
                                    .any_bounded = one.row.bounded != 0,
                                    .sampled = tokens.as<std::int32_t>(),
                                    .outcome = tokens.as<std::int32_t>() + rows},
                                   bench.on());
              }));
  }
}

/// Cards of a kind differ by some per cent, and each by its temperature: a run opens with these.
void measure_limits() {
  constexpr std::int64_t rows = 256;
  const double bandwidth = read_bandwidth();
  const auto stream = must(make_stream());
  layer_products all{rows, 1, stream.get()};
  all.choose_library();
  std::vector<double> times;
  for (int i = 0; i < 9; ++i)
    times.push_back(device_seconds(stream.get(), [&] { all.pass(); }));
  const double time = median(times);
  fmt::print(
      "limits: read {:.2f} TB/s; cuBLASLt's products of {} rows of an 8B's layers {:.2f} ms, "
      "{:.0f} TFLOP/s\n",
      bandwidth / 1e12, rows, time * 1e3, all.flops() / time / 1e12);
}

} // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view{argv[1]} == "limits") {
    must(open_device(0));
    measure_limits();
    return 0;
  }
  if (argc == 2 && std::string_view{argv[1]} == "swap") {
    must(open_device(0));
    // What a sequence of 1,840 tokens holds.
    measure_swap(115, 4);
    return 0;
  }
  std::vector<std::int64_t> all_rows;
  for (int i = 1; i < argc; ++i)
    all_rows.push_back(std::clamp<std::int64_t>(std::atoi(argv[i]), 1, most_prompt_rows));
  if (all_rows.empty())
    all_rows = {1, 32, 256, 512, 2048, 8192};
  must(open_device(0));
  op_bench bench;
  products(bench, all_rows);
  for (const std::int64_t rows : all_rows) {
    if (rows > most_rows)
      continue;
    rows_of(bench, rows);
    attention_of(bench, static_cast<std::uint32_t>(rows));
    sampling_of(bench, static_cast<std::uint32_t>(rows));
  }
  for (const prompt_load& load :
       {prompt_load{1, 0, 2048}, prompt_load{1, 0, 8192}, prompt_load{1, 6144, 2048},
        prompt_load{16, 0, 512}, prompt_load{64, 0, 128}})
    prompts_of(bench, load);
  return 0;
}
