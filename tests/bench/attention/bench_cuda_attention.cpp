#include "engine/exec/cuda/step_graphs.hpp"
#include "engine/exec/cuda/step_inputs.hpp"
#include "tests/bench/attention/attention_peer.hpp"
#include "tests/bench/cuda_bench.hpp"
#include "troupe/base/prng.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <numeric>
#include <optional>
#include <string_view>
#include <vector>

// Attention of one layer in bf16 over the paged cache, ours beside FlashInfer's kernels and
// cuDNN's, with the heads of Llama 3 8B and of Qwen3 0.6B: microseconds, and how many times as long
// as ours a peer takes. All kernels take turns in one process, each many times in a CUDA graph,
// over as many caches as L2 cannot hold; medians. Outputs are held to ours first. Steps of decodes
// are also timed by the kernel that the engine takes for them, which ropes and stores the row's own
// k and v too.
//
//   bench_cuda_attention [NAME]      loads whose name has NAME in it; all without
namespace {

using namespace troupe;
using namespace troupe::bench;
using namespace troupe::engine::cuda;
namespace ops = troupe::kernels::cuda;

constexpr std::int32_t kv_heads = 8;
constexpr std::int32_t dim = 128;
constexpr std::int32_t block_size = 16;
constexpr int launches = 16;
constexpr int rounds = 9;
/// What caches have together, so that none is in L2 when its turn comes.
constexpr std::int64_t least_cache_bytes = std::int64_t{384} << 20U;
/// Of the difference to ours, in our outputs' root mean square: both round probabilities and
/// outputs to bf16.
constexpr double most_difference = 0.02;

struct named_load {
  std::string_view name;
  std::vector<attention_load::member> sequences;
};

std::vector<attention_load::member> alike(std::size_t count, attention_load::member one) {
  return std::vector<attention_load::member>(count, one);
}
std::vector<attention_load::member> together(std::vector<attention_load::member> first,
                                             const std::vector<attention_load::member>& then) {
  first.insert(first.end(), then.begin(), then.end());
  return first;
}

std::vector<named_load> all_loads() {
  const auto decodes = [](std::size_t count, std::int32_t positions) {
    return alike(count, {.past = positions - 1, .rows = 1});
  };
  const auto prompts = [](std::size_t count, std::int32_t rows, std::int32_t past = 0) {
    return alike(count, {.past = past, .rows = rows});
  };
  return {{"decode 1 at 1024", decodes(1, 1024)},
          {"decode 1 at 32768", decodes(1, 32768)},
          {"decode 4 at 8192", decodes(4, 8192)},
          {"decode 8 at 272", decodes(8, 272)},
          {"decode 20 at 4096", decodes(20, 4096)},
          {"decode 32 at 4096", decodes(32, 4096)},
          {"decode 40 at 2000", decodes(40, 2000)},
          {"decode 63 at 500 and 1 at 32768", together(decodes(63, 500), decodes(1, 32768))},
          {"decode 64 at 272", decodes(64, 272)},
          {"decode 256 at 272", decodes(256, 272)},
          {"decode 256 at 1040", decodes(256, 1040)},
          {"prompts 1 x 512", prompts(1, 512)},
          {"prompts 1 x 2048", prompts(1, 2048)},
          {"prompts 1 x 8192", prompts(1, 8192)},
          {"prompts 8 x 1024", prompts(8, 1024)},
          {"prompts 16 x 512", prompts(16, 512)},
          {"prompts 64 x 128", prompts(64, 128)},
          {"chunk 1 x 2048 behind 6144", prompts(1, 2048, 6144)},
          {"mixed 1 at 32768 and 1 x 512", together(decodes(1, 32768), prompts(1, 512))},
          {"mixed 64 at 576 and 8 x 504", together(decodes(64, 576), prompts(8, 504))},
          {"mixed 192 at 576 and 2 x 416", together(decodes(192, 576), prompts(2, 416))}};
}

/// A load on shuffled blocks.
attention_load placed(const named_load& of, std::int32_t heads) {
  attention_load load{.heads = heads,
                      .kv_heads = kv_heads,
                      .dim = dim,
                      .block_size = block_size,
                      .blocks = 0,
                      .sequences = of.sequences,
                      .tables = {}};
  for (const auto& one : load.sequences)
    load.blocks += load.blocks_of(one);
  load.tables.resize(static_cast<std::size_t>(load.blocks));
  std::iota(load.tables.begin(), load.tables.end(), 0);
  std::shuffle(load.tables.begin(), load.tables.end(), splitmix64{1});
  return load;
}

/// K and V of as many layers as it takes, and q and outputs of one.
class load_memory {
public:
  explicit load_memory(const attention_load& load)
      : q_{random_buffer(load.rows() * load.heads * dim)}, out_{random_buffer(load.rows() *
                                                                              load.heads * dim)} {
    const std::int64_t elements = load.blocks * kv_heads * block_size * dim;
    const std::int64_t copies =
        std::clamp<std::int64_t>(least_cache_bytes / (elements * 4), 1, launches);
    for (std::int64_t i = 0; i < copies; ++i) {
      k_.push_back(random_buffer(elements));
      v_.push_back(random_buffer(elements));
    }
    must(wait(stream_ref{nullptr}));
  }

  attention_tensors of(int launch) const {
    const std::size_t i = static_cast<std::size_t>(launch) % k_.size();
    return {q_.data(), k_[i].data(), v_[i].data(), out_.data()};
  }
  std::vector<float> outputs(stream_ref on) const {
    std::vector<std::uint16_t> bits(out_.size() / 2);
    must(download(bits.data(), out_.data(), out_.size(), on));
    must(wait(on));
    std::vector<float> values;
    values.reserve(bits.size());
    for (const std::uint16_t one : bits)
      values.push_back(kernels::from_bf16(one));
    return values;
  }

private:
  device_buffer q_;
  device_buffer out_;
  std::vector<device_buffer> k_;
  std::vector<device_buffer> v_;
};

/// The difference of two outputs, in the root mean square of the first.
double difference(const std::vector<float>& ours, const std::vector<float>& theirs) {
  double apart = 0, all = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const double d = static_cast<double>(ours[i]) - theirs[i];
    apart += d * d;
    all += static_cast<double>(ours[i]) * ours[i];
  }
  return std::sqrt(apart / all);
}

/// Our kernels, with a step's inputs as the executor makes them.
class own_attention {
public:
  own_attention(const attention_load& load, stream_ref on)
      : load_{load}, limits_{.rows = static_cast<std::uint32_t>(load.rows()),
                             .sequences = static_cast<std::uint32_t>(load.sequences.size()),
                             .table_entries = load.tables.size(),
                             .group = load.heads / kv_heads,
                             .kv_heads = kv_heads,
                             .dim = dim,
                             .prefill_rows = ops::wide_tile_rows},
        all_{sent(has_prompts(load) ? as_executor(limits_) : limits_, on)} {
    if (!all_.here.decodes_alone())
      return;
    turned_ = sent(as_executor(limits_), on);
    qkv_ = random_buffer(load.rows() * (load.heads + 2 * kv_heads) * dim);
    const std::int32_t longest = std::ranges::max(load.sequences, {}, [](const auto& one) {
                                   return one.positions();
                                 }).positions();
    angles_ = random_buffer(std::int64_t{longest} * dim * 2);
    must(wait(stream_ref{nullptr}));
  }

  bool decodes_alone() const { return turned_.has_value(); }

  result<void> attend(const attention_tensors& at, stream_ref on) const {
    return ops::attention(args_of(all_, at), on);
  }
  /// Of decodes alone: rope, the store of k and v, and attention.
  result<void> turn(const attention_tensors& at, stream_ref on) const {
    const auto args = args_of(*turned_, at);
    const std::int64_t width = (load_.heads + 2 * kv_heads) * dim;
    return ops::turned_attention(args,
                                 {.qkv = qkv_.data(),
                                  .qkv_stride = width,
                                  .heads = load_.heads,
                                  .cache = args.cache,
                                  .batch = args.batch,
                                  .rows = load_.rows(),
                                  .cos = angles_.as<float>(),
                                  .sin = angles_.as<float>()},
                                 ops::turned_team(args.cache, turned_->here.decode_items()), on);
  }

private:
  /// A step's inputs here and on the device.
  struct sent_inputs {
    host_inputs here;
    device_inputs there;
  };

  static bool has_prompts(const attention_load& load) {
    return std::ranges::any_of(load.sequences, [](const auto& one) { return one.rows > 1; });
  }
  /// What the executor says unless it is batch-invariant.
  static input_limits as_executor(input_limits limits) {
    limits.whole_positions = 1024;
    return limits;
  }
  host_inputs inputs_of(const input_limits& limits) const {
    auto made = must(host_inputs::make(limits));
    std::size_t first = 0;
    std::int32_t row = 0;
    for (std::size_t s = 0; s < load_.sequences.size(); ++s) {
      const auto& one = load_.sequences[s];
      std::vector<block_id> table;
      for (std::int32_t b = 0; b < load_.blocks_of(one); ++b)
        table.push_back(block_id{
            static_cast<std::uint32_t>(load_.tables[first + static_cast<std::size_t>(b)])});
      first += table.size();
      made.add({.row_begin = row, .rows = one.rows, .first_position = one.past}, table);
      for (std::int32_t p = one.past; p < one.positions(); ++p, ++row)
        made.add_row({.position = p,
                      .sequence = static_cast<std::int32_t>(s),
                      .slot = static_cast<std::int32_t>(
                                  value(table[static_cast<std::size_t>(p / block_size)])) *
                                  block_size +
                              p % block_size});
      if (one.rows == 1)
        made.pick({});
    }
    made.order_prompts();
    made.deal_decodes();
    return made;
  }
  sent_inputs sent(const input_limits& limits, stream_ref on) const {
    sent_inputs made{inputs_of(limits), must(device_inputs::make(limits))};
    must(made.there.send(made.here, on));
    must(wait(on));
    return made;
  }
  ops::attention_args args_of(const sent_inputs& step, const attention_tensors& at) const {
    const forward_batch batch = step.there.batch_of(step.here);
    ops::attention_args args = batch.attention;
    args.q = at.q;
    args.q_stride = args.out_stride = load_.heads * dim;
    args.heads = load_.heads;
    args.cache = {.k = at.k,
                  .v = at.v,
                  .blocks = load_.blocks,
                  .block_size = block_size,
                  .kv_heads = kv_heads,
                  .dim = dim};
    args.rows = load_.rows();
    args.batch = batch.batch;
    args.scale = 1.0F / std::sqrt(static_cast<float>(dim));
    args.out = at.out;
    return args;
  }

  const attention_load& load_;
  input_limits limits_;
  sent_inputs all_;
  /// Of decodes alone.
  std::optional<sent_inputs> turned_;
  device_buffer qkv_;
  device_buffer angles_;
};

/// One kernel of those that take turns.
struct contender {
  std::string_view name;
  std::function<result<void>(const attention_tensors&)> run;
  std::uint32_t key = 0;
  std::vector<double> times{};
};

/// What a load has to read of K and V at least, and to multiply.
struct load_work {
  double bytes = 0;
  double flops = 0;

  explicit load_work(const attention_load& load) {
    for (const auto& one : load.sequences) {
      bytes += 4.0 * one.positions() * kv_heads * dim;
      flops += 2.0 * one.rows * (one.past + one.positions() + 1) * load.heads * dim;
    }
  }
};

class attention_bench {
public:
  attention_bench() : stream_{must(make_stream())}, peers_{attention_peers()} {}

  /// @returns whether all outputs are near ours
  bool run(const named_load& named, std::int32_t heads) {
    const attention_load load = placed(named, heads);
    const load_memory memory{load};
    const own_attention own{load, on()};
    must(own.attend(memory.of(0), on()));
    const std::vector<float> ours = memory.outputs(on());
    std::vector<contender> all;
    all.push_back({"ours", [&](const auto& at) { return own.attend(at, on()); }});
    if (own.decodes_alone())
      all.push_back({"ours, with rope", [&](const auto& at) { return own.turn(at, on()); }});
    bool near = true;
    for (const auto& peer : peers_) {
      auto done = peer->plan(load, on());
      if (done)
        done = peer->run(memory.of(0), on());
      if (!done) {
        fmt::print("attention: {} heads, {}: {}\n", heads, named.name, done.error().note);
        continue;
      }
      const double apart = difference(ours, memory.outputs(on()));
      if (!(apart < most_difference)) {
        fmt::print("attention: {} heads, {}: {} DIFFERS by {:.4f}\n", heads, named.name,
                   peer->name(), apart);
        near = false;
      }
      all.push_back({peer->name(), [&](const auto& at) { return peer->run(at, on()); }});
    }
    time(all, memory);
    print(named, load, all);
    return near;
  }

private:
  stream_ref on() const { return stream_.get(); }

  void time(std::vector<contender>& all, const load_memory& memory) {
    for (contender& one : all)
      one.key = ++keys_;
    for (int round = -2; round < rounds; ++round)
      for (contender& one : all) {
        const double seconds = device_seconds(on(), [&] {
          must(graphs_.run(
              {.rows = one.key},
              [&]() -> result<void> {
                for (int i = 0; i < launches; ++i)
                  if (auto done = one.run(memory.of(i)); !done)
                    return done;
                return {};
              },
              on()));
        });
        if (round >= 0)
          one.times.push_back(seconds / launches);
      }
  }

  static void print(const named_load& named, const attention_load& load,
                    const std::vector<contender>& all) {
    const load_work work{load};
    const double ours = median(all.front().times);
    for (const contender& one : all) {
      const double time = median(one.times);
      fmt::print(
          "attention: {} heads, {:<31} {:<21} {:8.1f} us {:5.2f} x ours {:5.2f} TB/s {:4.0f} "
          "TFLOP/s\n",
          load.heads, named.name, one.name, time * 1e6, time / ours, work.bytes / time / 1e12,
          work.flops / time / 1e12);
    }
    std::fflush(stdout);
  }

  stream stream_;
  std::vector<std::unique_ptr<attention_peer>> peers_;
  step_graphs graphs_;
  std::uint32_t keys_ = 0;
};

} // namespace

int main(int argc, char** argv) {
  const std::string_view wanted = argc > 1 ? argv[1] : "";
  if (wanted == "-h" || wanted == "--help") {
    fmt::print("bench_cuda_attention [NAME]: attention of ours beside that of others; of the loads "
               "whose name has NAME in it\n");
    return 0;
  }
  must(open_device(0));
  fmt::print("attention: read {:.2f} TB/s\n", read_bandwidth() / 1e12);
  attention_bench bench;
  bool near = true;
  for (const named_load& one : all_loads())
    for (const std::int32_t heads : {32, 16})
      if (one.name.find(wanted) != std::string_view::npos)
        near = bench.run(one, heads) && near;
  return near ? 0 : 1;
}
