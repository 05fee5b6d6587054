#include "kernels/cpu/ops.hpp"
#include "tests/bench/kernels_yardstick.hpp"
#include "troupe/base/prng.hpp"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <unistd.h>
#include <vector>

// The CPU kernels against what the machine can do, in the shapes of Qwen3-0.6B: products against
// oneDNN, few rows against the read bandwidth, attention and rope against the products. Every
// figure is the median of seven interleaved rounds; only the ratios mean something on a shared
// machine.
namespace {

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::kernels::cpu;

constexpr int rounds = 7;

struct dimensions {
  std::int64_t layers = 28, hidden = 1024, heads = 16, kv_heads = 8, dim = 128, ffn = 3072;
  std::int64_t vocabulary = 151936;
  [[nodiscard]] std::int64_t qkv() const { return (heads + 2 * kv_heads) * dim; }
};
constexpr dimensions qwen;

struct row {
  std::string name;
  double ours;
  double yardstick;
  std::string unit;
};

double seconds_of(auto&& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

template <class T>
T must(result<T> r) {
  if (!r) {
    fmt::print(stderr, "bench_kernels: {}\n", to_string(r.error()));
    std::exit(1);
  }
  return std::move(*r);
}

/// Random bf16 weights of the largest matrix; smaller ones are its first rows.
class weights {
public:
  explicit weights(std::int64_t elements) : data_(static_cast<std::size_t>(elements)) {
    splitmix64 random{1};
    for (std::uint16_t& x : data_)
      x = to_bf16((static_cast<float>(random() >> 40) / 16777216.0F - 0.5F) / 16.0F);
  }
  packed_matrix matrix(team& t, std::int64_t n, std::int64_t k) const {
    const tensor_view view = matrix_view(data_.data(), dtype::bf16, n, k);
    return must(pack({.sources = {&view, 1}, .compute = dtype::bf16, .helpers = &t}));
  }
  packed_matrix gate_up(team& t, std::int64_t ffn, std::int64_t k) const {
    const tensor_view view = matrix_view(data_.data(), dtype::bf16, ffn, k);
    const std::vector<tensor_view> both{view, view};
    return must(pack(
        {.sources = both, .compute = dtype::bf16, .layout = pack_layout::gate_up, .helpers = &t}));
  }

private:
  std::vector<std::uint16_t> data_;
};

/// Activations large enough for every product here.
struct activations {
  std::int64_t rows;
  std::int64_t wide = activation_stride(3072, dtype::bf16);
  buffer input, gated, output;
  explicit activations(std::int64_t count)
      : rows{count}, input{must(buffer::make(static_cast<std::size_t>(count * wide * 2)))},
        gated{must(buffer::make(static_cast<std::size_t>(count * wide * 2)))},
        output{must(buffer::make(static_cast<std::size_t>(count * 6144 * 4)))} {
    for (std::int64_t i = 0; i < count * wide; ++i)
      input.as<std::uint16_t>()[i] = to_bf16(static_cast<float>(i % 251) / 251.0F - 0.5F);
  }
};

linear_args product(activations& x, const packed_matrix& w, bool tree) {
  return {.a = x.input.data(),
          .lda = activation_stride(w.cols(), dtype::bf16),
          .w = &w,
          .c = x.output.as<float>(),
          .ldc = w.rows(),
          .rows = x.rows,
          .k_segments = tree ? 8 : 1,
          .accumulate = tree};
}

std::vector<row> bench_prefill(team& t, const weights& source) {
  struct shape {
    const char* name;
    std::int64_t n, k;
    bool tree;
  };
  std::vector<row> rows;
  activations x{512};
  double ours_total = 0;
  double theirs_total = 0;
  for (const shape& s : {shape{"qkv", qwen.qkv(), qwen.hidden, false},
                         shape{"o_proj", qwen.hidden, qwen.heads * qwen.dim, true},
                         shape{"gate_up", 2 * qwen.ffn, qwen.hidden, false},
                         shape{"down_proj", qwen.hidden, qwen.ffn, true}}) {
    const bool gate_up = s.n == 2 * qwen.ffn;
    const packed_matrix w = gate_up ? source.gate_up(t, qwen.ffn, s.k) : source.matrix(t, s.n, s.k);
    bench::onednn_product judge{x.rows, s.n, s.k};
    const linear_args args = product(x, w, s.tree);
    const gate_up_args gated{.a = args.a,
                             .lda = args.lda,
                             .w = &w,
                             .out = x.gated.data(),
                             .ldo = x.wide,
                             .rows = x.rows};
    std::vector<double> ours, theirs;
    for (int round = 0; round <= rounds; ++round) {
      const double mine = seconds_of([&] {
        t.run([&](member& m) { gate_up ? linear_silu_mul(m, gated) : linear(m, args); });
      });
      const double its = seconds_of([&] { judge.run(static_cast<int>(t.size())); });
      if (round == 0)
        continue; // Caches and pages warm up.
      ours.push_back(mine);
      theirs.push_back(its);
    }
    ours_total += median(ours);
    theirs_total += median(theirs);
    const double gflop = 2e-9 * static_cast<double>(x.rows * s.n * s.k);
    rows.push_back({fmt::format("M=512 {} {}x{}", s.name, s.n, s.k), gflop / median(ours),
                    gflop / median(theirs), "GFLOP/s"});
  }
  rows.push_back({"M=512 layer", 1 / ours_total, 1 / theirs_total, "layers/s"});
  return rows;
}

/// All the matrices of the model, packed.
struct model {
  struct layer {
    packed_matrix qkv, o, gate_up, down;
  };
  std::vector<layer> layers;
  packed_matrix head;
  std::size_t bytes = 0;

  model(team& t, const weights& source) {
    for (std::int64_t i = 0; i < qwen.layers; ++i)
      layers.push_back({source.matrix(t, qwen.qkv(), qwen.hidden),
                        source.matrix(t, qwen.hidden, qwen.heads * qwen.dim),
                        source.gate_up(t, qwen.ffn, qwen.hidden),
                        source.matrix(t, qwen.hidden, qwen.ffn)});
    head = source.matrix(t, qwen.vocabulary, qwen.hidden);
    for (const layer& l : layers)
      bytes += l.qkv.bytes() + l.o.bytes() + l.gate_up.bytes() + l.down.bytes();
    bytes += head.bytes();
  }

  /// All products of one step, with the barriers that a real one has.
  void step(member& m, activations& x, float* logits) const {
    for (const layer& l : layers) {
      linear(m, product(x, l.qkv, false));
      m.sync();
      m.sync();
      linear(m, product(x, l.o, true));
      m.sync();
      linear_silu_mul(m, {.a = x.input.data(),
                          .lda = activation_stride(qwen.hidden, dtype::bf16),
                          .w = &l.gate_up,
                          .out = x.gated.data(),
                          .ldo = x.wide,
                          .rows = x.rows});
      m.sync();
      linear(m, product(x, l.down, true));
      m.sync();
    }
    linear_args last = product(x, head, false);
    last.c = logits;
    linear(m, last);
  }
};

/// Reads `size` bytes once with all members; bytes per second.
double read_probe(team& t, const buffer& memory) {
  std::uint64_t sink = 0;
  const double seconds = seconds_of([&] {
    t.run([&](member& m) {
      const share mine = m.split(static_cast<std::int64_t>(memory.size() / 64));
      std::uint64_t sum[8] = {};
      for (std::int64_t line = mine.begin; line < mine.end; ++line)
        for (int i = 0; i < 8; ++i)
          sum[i] += memory.as<std::uint64_t>()[line * 8 + i];
      __atomic_fetch_add(&sink,
                         sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7],
                         __ATOMIC_RELAXED);
    });
  });
  if (sink == 1)
    fmt::print("\n");
  return static_cast<double>(memory.size()) / seconds;
}

std::vector<row> bench_decode(team& t, const weights& source) {
  std::vector<row> rows;
  const model all{t, source};
  buffer probe = must(buffer::make(1U << 30U));
  std::memset(probe.data(), 1, probe.size());
  buffer logits = must(buffer::make(static_cast<std::size_t>(16 * qwen.vocabulary * 4)));
  activations x1{1}, x8{8}, x16{16};
  std::vector<double> bandwidth, ratio, few, many, rate;
  for (int round = 0; round <= rounds; ++round) {
    const double before = read_probe(t, probe);
    const double one =
        seconds_of([&] { t.run([&](member& m) { all.step(m, x1, logits.as<float>()); }); });
    const double after = read_probe(t, probe);
    const double eight =
        seconds_of([&] { t.run([&](member& m) { all.step(m, x8, logits.as<float>()); }); });
    const double sixteen =
        seconds_of([&] { t.run([&](member& m) { all.step(m, x16, logits.as<float>()); }); });
    if (round == 0)
      continue;
    const double read = static_cast<double>(all.bytes) / one;
    bandwidth.push_back((before + after) / 2e9);
    rate.push_back(read / 1e9);
    ratio.push_back(read / ((before + after) / 2));
    few.push_back(8 / eight);
    many.push_back(16 / sixteen);
    fmt::print("  round {}: probe {:.1f} and {:.1f} GB/s, M=1 {:.1f} GB/s, {:.1f} tokens/s\n",
               round, before / 1e9, after / 1e9, read / 1e9, 1 / one);
  }
  // The ratio's own median, for the bandwidth changes from round to round.
  rows.push_back(
      {"M=1 all products, paired", median(ratio) * median(bandwidth), median(bandwidth), "GB/s"});
  const double tokens = median(rate) * 1e9 / static_cast<double>(all.bytes);
  rows.push_back({"M=8 all products / M=1", median(few), tokens, "tokens/s"});
  rows.push_back({"M=16 all products / M=1", median(many), tokens, "tokens/s"});
  return rows;
}

/// Attention and rope of one layer for one sequence: `rows` new positions after `past`.
double attention_seconds(team& t, std::int64_t rows, std::int64_t past) {
  const std::int64_t blocks = (rows + past + 15) / 16;
  const auto bytes = kv_block_bytes(dtype::bf16, 16, 8, 128) * static_cast<std::size_t>(blocks);
  buffer k = must(buffer::make(bytes)), v = must(buffer::make(bytes));
  std::vector<block_id> table;
  for (std::int64_t i = 0; i < blocks; ++i)
    table.push_back(static_cast<block_id>(blocks - 1 - i));
  const auto count = static_cast<std::size_t>(rows);
  std::vector<float> qkv(count * 4096, 0.25F), norm(128, 1.0F);
  std::vector<float> angles(static_cast<std::size_t>(rows + past) * 64, 0.7F);
  std::vector<std::uint16_t> q(count * 2048), out(count * 2048);
  const std::vector<sequence_rows> sequences{
      {.row_begin = 0, .rows = rows, .first_position = past, .blocks = table}};
  const kv_cache cache{.k = k.data(),
                       .v = v.data(),
                       .type = dtype::bf16,
                       .blocks = blocks,
                       .kv_heads = 8,
                       .dim = 128};
  std::vector<double> times;
  for (int round = 0; round <= rounds; ++round)
    times.push_back(seconds_of([&] {
      t.run([&](member& m) {
        rope_store(m, {.qkv = qkv.data(),
                       .qkv_stride = 4096,
                       .heads = 16,
                       .cache = cache,
                       .sequences = sequences,
                       .q_norm = norm.data(),
                       .k_norm = norm.data(),
                       .cos = angles.data(),
                       .sin = angles.data(),
                       .table_positions = rows + past,
                       .rotary_dim = 128,
                       .q = q.data(),
                       .q_stride = 2048});
        m.sync();
        attention(m, {.q = q.data(),
                      .q_stride = 2048,
                      .heads = 16,
                      .cache = cache,
                      .sequences = sequences,
                      .scale = 0.088F,
                      .out = out.data(),
                      .out_stride = 2048});
      });
    }));
  times.erase(times.begin());
  return median(times);
}

void report(const std::vector<row>& rows, const char* json) {
  fmt::print("\n{:34} {:>10} {:>10} {:>8}  unit\n", "what", "ours", "yardstick", "ratio");
  for (const row& r : rows)
    fmt::print("{:34} {:10.1f} {:10.1f} {:8.3f}  {}\n", r.name, r.ours, r.yardstick,
               r.ours / r.yardstick, r.unit);
  if (json == nullptr)
    return;
  std::vector<std::string> lines;
  for (const row& r : rows)
    lines.push_back(fmt::format(R"(  {{"name": "{}", "ours": {}, "yardstick": {}, "unit": "{}"}})",
                                r.name, r.ours, r.yardstick, r.unit));
  std::ofstream{json} << fmt::format("[\n{}\n]\n", fmt::join(lines, ",\n"));
}

} // namespace

int main(int argc, char** argv) {
  // oneDNN's idle threads would spin on the cores that we measure on. OpenMP reads this when it is
  // loaded, so the program starts once more.
  static char again[] = "--again";
  if (std::string_view{argv[argc - 1]} != again) {
    std::vector<char*> arguments(argv, argv + argc);
    arguments.insert(arguments.end(), {again, nullptr});
    ::setenv("OMP_WAIT_POLICY", "passive", 1);
    return ::execv("/proc/self/exe", arguments.data());
  }
  unsigned threads = 2;
  const char* json = nullptr;
  std::string only;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    if (option == "--threads")
      threads = static_cast<unsigned>(std::max(1, std::atoi(argv[i + 1])));
    else if (option == "--json")
      json = argv[i + 1];
    else if (option == "--only")
      only = argv[i + 1];
  }
  team t{threads};
  fmt::print("bench_kernels: {} threads, path {}\n", threads, to_string(t.path()));
  const weights source{qwen.vocabulary * qwen.hidden};
  std::vector<row> rows;
  if (only.empty() || only == "prefill")
    rows = bench_prefill(t, source);
  if (!rows.empty()) {
    const double layers = 1 / rows.back().ours;
    const double attention = attention_seconds(t, 512, 0);
    rows.push_back({"rope + attention of 512 / layer", attention * 1e3, layers * 1e3, "ms"});
  }
  if (only.empty() || only == "decode") {
    const auto decoded = bench_decode(t, source);
    rows.insert(rows.end(), decoded.begin(), decoded.end());
    const double token = 1e3 / rows.back().yardstick / static_cast<double>(qwen.layers);
    rows.push_back(
        {"rope + attention at 1024 / layer", attention_seconds(t, 1, 1024) * 1e3, token, "ms"});
  }
  report(rows, json);
  return 0;
}
