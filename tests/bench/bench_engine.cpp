#include "engine/exec/cpu_executor.hpp"
#include "engine/exec/step_driver.hpp"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

// The CPU executor on random bf16 models: decode at batch 1, 8 and 16 and prefill of 512, against
// the machine's read bandwidth measured right before and after each round, and against llama.cpp's
// own bench when it is given. Rounds are interleaved and medians of seven are reported: on a
// shared machine only ratios of one run mean something. Prints JSON.
//
//   bench_engine [--model qwen3|small] [--threads N] [--rounds N]
//                [--llama-bench PATH --gguf FILE] [--llama-batched-bench PATH]
//                [--vllm COMMAND]
//
// llama.cpp is asked by one command a measure. vLLM takes half a minute to start, so it is one
// process that stays (tests/bench/peer_vllm.py) and is asked over its standard input; it sleeps
// while the others are measured.
namespace {

using namespace troupe;
using namespace troupe::engine;
using steady = std::chrono::steady_clock;

constexpr std::string_view qwen3_config =
    R"({"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3",
  "hidden_size":1024,"intermediate_size":3072,"num_hidden_layers":28,"num_attention_heads":16,
  "num_key_value_heads":8,"head_dim":128,"vocab_size":151936,"max_position_embeddings":40960,
  "tie_word_embeddings":true,"rope_theta":1000000,"torch_dtype":"bfloat16"})";
constexpr std::string_view small_config =
    R"({"architectures":["LlamaForCausalLM"],"model_type":"llama",
  "hidden_size":320,"intermediate_size":864,"num_hidden_layers":6,"num_attention_heads":5,
  "num_key_value_heads":5,"vocab_size":4096,"max_position_embeddings":4096,
  "torch_dtype":"bfloat16"})";

struct settings {
  std::string model = "qwen3";
  unsigned threads = 2;
  int rounds = 7;
  std::string llama_bench;
  std::string llama_batched_bench;
  std::string gguf;
  std::string vllm;
};

double seconds_since(steady::time_point begin) {
  return std::chrono::duration<double>(steady::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

template <class T>
T must(result<T> got) {
  if (!got) {
    fmt::print(stderr, "bench_engine: {}\n", to_string(got.error()));
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>)
    return std::move(*got);
}

/// Reads a large buffer once with the whole team; bytes per second.
class bandwidth_probe {
public:
  explicit bandwidth_probe(unsigned threads) : team_{threads} {
    memory_ = must(kernels::buffer::make(bytes));
    std::memset(memory_.data(), 1, bytes);
  }

  double operator()() {
    const auto begin = steady::now();
    team_.run([&](kernels::cpu::member& m) {
      constexpr std::int64_t stripe = 4096;
      const auto mine = m.split(static_cast<std::int64_t>(bytes) / stripe);
      const auto* at = memory_.as<std::uint64_t>() + mine.begin * stripe / 8;
      const auto* const end = memory_.as<std::uint64_t>() + mine.end * stripe / 8;
      std::array<std::uint64_t, 16> sums{};
      for (; at < end; at += sums.size())
        for (std::size_t lane = 0; lane < sums.size(); ++lane)
          sums[lane] ^= at[lane];
      for (const std::uint64_t sum : sums)
        sink_ = sink_ + sum;
    });
    return bytes / seconds_since(begin);
  }

private:
  static constexpr std::size_t bytes = std::size_t{1} << 30U;
  kernels::cpu::team team_;
  kernels::buffer memory_;
  volatile std::uint64_t sink_ = 0;
};

/// Decode of `batch` sequences behind prompts of 16 tokens, or one prefill; tokens per second.
class workload {
public:
  explicit workload(cpu_executor& run)
      : drive_{run}, vocabulary_{run.describe().vocab_size}, weight_bytes_{static_cast<double>(
                                                                 run.describe().weight_bytes)} {}

  [[nodiscard]] double weight_bytes() const { return weight_bytes_; }

  double decode(std::uint32_t batch, std::uint32_t steps) {
    drive_.reset();
    for (std::uint32_t i = 0; i < batch; ++i) {
      drive_.add(request_id{i + 1}, prompt(16), test::sampling_at(),
                 test::blocks_for(16 + steps + 1, 16, i * 16));
      drive_.row(request_id{i + 1}, 0, 16, true);
    }
    static_cast<void>(must(drive_.run()));
    const auto begin = steady::now();
    for (std::uint32_t step = 0; step < steps; ++step) {
      for (std::uint32_t i = 0; i < batch; ++i)
        drive_.row(request_id{i + 1}, 16 + step, 1, true);
      static_cast<void>(must(drive_.run()));
    }
    return batch * steps / seconds_since(begin);
  }

  double prefill(std::uint32_t tokens) {
    drive_.reset();
    drive_.add(request_id{1}, prompt(tokens), test::sampling_at(), test::blocks_for(tokens, 16));
    drive_.row(request_id{1}, 0, tokens, true);
    const auto begin = steady::now();
    static_cast<void>(must(drive_.run()));
    return tokens / seconds_since(begin);
  }

private:
  std::vector<token_id> prompt(std::uint32_t tokens) const {
    std::vector<token_id> ids(tokens);
    for (std::uint32_t i = 0; i < tokens; ++i)
      ids[i] = static_cast<token_id>((std::uint64_t{i} * 7919 + 13) % vocabulary_);
    return ids;
  }

  test::step_driver drive_;
  std::uint32_t vocabulary_;
  double weight_bytes_;
};

/// The last number that a command prints, or nothing.
std::optional<double> last_number(const std::string& command) {
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr)
    return std::nullopt;
  std::string text;
  std::array<char, 4096> part;
  while (const std::size_t got = std::fread(part.data(), 1, part.size(), pipe))
    text.append(part.data(), got);
  if (::pclose(pipe) != 0)
    return std::nullopt;
  const auto end = text.find_last_of("0123456789");
  if (end == std::string::npos)
    return std::nullopt;
  const auto begin = text.find_last_not_of("0123456789.", end);
  return std::atof(text.substr(begin == std::string::npos ? 0 : begin + 1).c_str());
}

/// A peer that stays: it prints a line when it is ready, then answers a measure's name with tokens
/// per second.
class resident_peer {
public:
  explicit resident_peer(const std::string& command) {
    std::array<int, 2> to{};
    std::array<int, 2> from{};
    if (::pipe(to.data()) != 0 || ::pipe(from.data()) != 0)
      std::exit(1);
    if (::fork() == 0) {
      ::dup2(to[0], STDIN_FILENO);
      ::dup2(from[1], STDOUT_FILENO);
      ::close(to[1]);
      ::execl("/bin/sh", "sh", "-c", ("exec " + command).c_str(), nullptr);
      std::_Exit(127);
    }
    ::close(to[0]);
    ::close(from[1]);
    questions_ = ::fdopen(to[1], "w");
    answers_ = ::fdopen(from[0], "r");
    static_cast<void>(line());
  }

  double ask(const std::string& measure) {
    fmt::print(questions_, "{}\n", measure);
    std::fflush(questions_);
    return std::atof(line().c_str());
  }

private:
  std::string line() {
    std::array<char, 256> text{};
    if (std::fgets(text.data(), text.size(), answers_) == nullptr) {
      fmt::print(stderr,
                 "bench_engine: the resident peer has ended; its standard error says why\n");
      std::exit(1);
    }
    return text.data();
  }

  FILE* questions_ = nullptr;
  FILE* answers_ = nullptr;
};

/// One thing that is measured in each round.
struct measure {
  std::string name;
  std::uint32_t batch;
  std::string llama;
  std::vector<double> ours{};
  std::vector<double> read_share{};
  std::vector<double> against_llama{};
  std::vector<double> against_vllm{};
};

/// Decode steps of one measurement: a second or so, for us and for llama.cpp alike.
std::uint32_t decode_steps(const settings& s) { return s.model == "small" ? 200 : 32; }

std::vector<measure> plan(const settings& s) {
  // The average is one before the last column of a row of CSV; llama-batched-bench ends in the
  // tokens per second of everything, so its text generation column is cut out.
  const auto bench = [&](std::string_view arguments) {
    return s.llama_bench.empty()
               ? std::string{}
               : fmt::format(
                     "{} -m {} -t {} {} -r 1 -lm none -o csv 2>/dev/null | tail -1 | awk -F'\",\"' "
                     "'{{print $(NF-1)}}'",
                     s.llama_bench, s.gguf, s.threads, arguments);
  };
  const std::uint32_t steps = decode_steps(s);
  const auto batched = [&](std::uint32_t batch) {
    return s.llama_batched_bench.empty()
               ? std::string{}
               : fmt::format(
                     "{} -m {} -c 4096 -b 2048 -ub 512 -npp 16 -ntg {} -npl {} -t {} -tb {} "
                     "2>/dev/null | grep '^|' | tail -1 | awk -F'|' '{{print $9}}'",
                     s.llama_batched_bench, s.gguf, steps, batch, s.threads, s.threads);
  };
  return {{"decode_1", 1, bench(fmt::format("-p 0 -n {}", steps))},
          {"decode_8", 8, batched(8)},
          {"decode_16", 16, batched(16)},
          {"prefill_512", 0, bench("-p 512 -n 0")}};
}

void measure_round(measure& m, workload& work, bandwidth_probe& probe, const settings& s,
                   std::optional<resident_peer>& vllm) {
  const std::uint32_t steps = decode_steps(s);
  const double before = probe();
  const double rate = m.batch == 0 ? work.prefill(512) : work.decode(m.batch, steps);
  const double after = probe();
  m.ours.push_back(rate);
  if (m.batch != 0)
    m.read_share.push_back(rate / m.batch * work.weight_bytes() / ((before + after) / 2));
  if (!m.llama.empty())
    if (const auto theirs = last_number(m.llama); theirs && *theirs > 0)
      m.against_llama.push_back(rate / *theirs);
  if (vllm)
    m.against_vllm.push_back(rate / vllm->ask(m.name));
}

/// What loading took, and the tokens a step that it found to fit step_target.
struct load_figures {
  double seconds;
  std::uint32_t batched_tokens;
};

void report(const std::vector<measure>& measures, const cpu_executor& run, load_figures load) {
  fmt::print("{{\n  \"device\": \"{}\", \"architecture\": \"{}\", \"weight_bytes\": {},\n"
             "  \"load_s\": {:.3f}, \"max_num_batched_tokens\": {},\n  \"measures\": [\n",
             run.describe().device, run.describe().architecture, run.describe().weight_bytes,
             load.seconds, load.batched_tokens);
  for (const measure& m : measures)
    fmt::print("    {{\"name\": \"{}\", \"tokens_per_s\": {:.1f}, \"all\": [{:.1f}], "
               "\"share_of_read_bandwidth\": {:.3f}, \"times_llama_cpp\": {:.3f}, "
               "\"times_vllm\": {:.3f}}}{}\n",
               m.name, median(m.ours), fmt::join(m.ours, ", "), median(m.read_share),
               median(m.against_llama), median(m.against_vllm), &m == &measures.back() ? "" : ",");
  fmt::print("  ]\n}}\n");
}

settings parse(int argc, char** argv) {
  settings s;
  const std::array<std::pair<std::string_view, std::string*>, 5> texts{
      {{"--model", &s.model},
       {"--llama-bench", &s.llama_bench},
       {"--llama-batched-bench", &s.llama_batched_bench},
       {"--gguf", &s.gguf},
       {"--vllm", &s.vllm}}};
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view key = argv[i];
    for (const auto& [name, value] : texts)
      if (key == name)
        *value = argv[i + 1];
    if (key == "--threads")
      s.threads = static_cast<unsigned>(std::atoi(argv[i + 1]));
    if (key == "--rounds")
      s.rounds = std::atoi(argv[i + 1]);
  }
  return s;
}

} // namespace

int main(int argc, char** argv) {
  const settings s = parse(argc, argv);
  const auto folder = std::filesystem::temp_directory_path() / ("bench_engine_" + s.model);
  std::filesystem::create_directories(folder);
  std::ofstream{folder / "config.json"} << (s.model == "small" ? small_config : qwen3_config);
  executor_options options;
  options.model_dir = folder;
  options.load_format = "dummy";
  options.max_model_len = 1024;
  options.max_num_seqs = 16;
  options.threads = s.threads;
  std::optional<cpu_executor> run;
  run.emplace(options);
  const auto begin = steady::now();
  must(run->load({}));
  const double load_seconds = seconds_since(begin);
  const std::uint32_t measured = run->describe().max_num_batched_tokens;
  if (measured < 512) {
    options.max_num_batched_tokens = 512;
    run.emplace(options);
    must(run->load({}));
  }
  bandwidth_probe probe{s.threads};
  workload work{*run};
  std::optional<resident_peer> vllm;
  if (!s.vllm.empty())
    vllm.emplace(s.vllm + " " + folder.string());
  std::vector<measure> measures = plan(s);
  for (int round = 0; round < s.rounds; ++round)
    for (measure& m : measures)
      measure_round(m, work, probe, s, vllm);
  report(measures, *run, {load_seconds, measured});
  return 0;
}
