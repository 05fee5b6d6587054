#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace troupe::cli {

/// Exit statuses: 0 good, 1 the command failed, 2 the command line is wrong, 3 a comparison's limit
/// is broken, 130 a second signal.
constexpr int good = 0;
constexpr int failed = 1;
/// Of `bench compare`: a limit is broken.
constexpr int limits_broken = 3;
constexpr int interrupted = 130;

/// What `troupe up` and `troupe check` share.
struct file_options {
  std::filesystem::path file;
  std::string node;
  std::vector<std::string> set;
  std::optional<std::uint16_t> port;
  std::string log_level;
  std::filesystem::path backend_directory{};
};

struct up_options {
  file_options config;
  /// "none", "explicit" or "poll", as Triton's; empty: what the file says.
  std::string control_mode{};
  std::optional<std::uint32_t> poll_seconds{};
  /// What the explicit mode loads at the start; "*" is all.
  std::vector<std::string> load_models;
  /// For tests: a kind of executor in place of the devices of the file.
  std::string executor;
  bool fault_injection = false;
  /// The process of this program that started it and with which it ends; 0 where people did.
  std::int32_t parent = 0;
};

/// Where a cluster answers, for the commands that ask one.
struct client_options {
  std::string url = "http://127.0.0.1:8000";
  /// Empty takes TROUPE_API_KEY.
  std::string api_key;
};

/// Given sampling parameters go into the request, the others are left to the model.
struct sampling_options {
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<std::int64_t> top_k;
  std::optional<std::int64_t> seed;
  std::optional<std::int64_t> max_tokens;
};

struct chat_options {
  client_options client;
  std::string model;
  std::string system;
  sampling_options sampling;
};

struct submit_options {
  client_options client;
  std::string model;
  std::string prompt;
  std::string file;
  std::string output;
  sampling_options sampling;
  unsigned concurrency = 8;
  bool json = false;
  bool stream = false;
};

/// Limits that are not given are not checked.
struct compare_limits {
  std::optional<double> latency_ratio;
  std::optional<double> p95_ratio;
  /// A share of the base's.
  std::optional<double> throughput_loss;
  /// A share of the answers.
  std::optional<double> equal_share;
  bool equal_output = false;

  [[nodiscard]] bool any() const {
    return latency_ratio || p95_ratio || throughput_loss || equal_share || equal_output;
  }
};

struct compare_options {
  /// What is compared, with the settings of both sides.
  file_options config;
  /// A cluster file or a model repository: the base.
  std::filesystem::path against;
  /// Where the base's backends lie; empty takes that of `config`.
  std::filesystem::path against_backends;
  std::string model;
  std::string against_model;
  /// "openai", "generate" or "auto".
  std::string api = "auto";
  /// JSON lines: bodies or strings; empty makes `prompts` of `words` words.
  std::filesystem::path prompts_file;
  std::uint32_t prompts = 16;
  std::uint32_t words = 24;
  std::uint32_t max_tokens = 32;
  std::uint32_t rounds = 3;
  std::uint32_t concurrency = 8;
  std::uint64_t seed = 1;
  std::string api_key;
  compare_limits limits;
  bool json = false;
  /// For tests: as up_options'.
  std::string executor;
};

struct bench_options {
  /// The cluster to start in this process; without a file the server of `client` is asked.
  file_options config;
  client_options client;
  std::string model;
  /// Each IN/OUT:REQUESTS or IN/OUT:REQUESTS@AT_A_TIME.
  std::vector<std::string> loads;
  /// Batches of which one decode step is timed.
  std::vector<std::uint32_t> decode;
  /// Lengths of a prompt whose first token is timed.
  std::vector<std::uint32_t> first_token;
  std::uint32_t rounds = 3;
  std::uint32_t vocabulary = 256;
  std::uint64_t seed = 1;
  bool json = false;
};

struct drain_options {
  client_options client;
  std::string node;
  double deadline_s = 30;
  /// The process stays when it is empty.
  bool stay = false;
};

struct secret_options {
  std::filesystem::path file;
};

struct status_options {
  client_options client;
  bool json = false;
  bool watch = false;
};

/// Each runs its command to the end and returns the exit status.
int run_up(const up_options& o);
int run_check(const file_options& o);
int run_chat(const chat_options& o);
int run_submit(const submit_options& o);
int run_status(const status_options& o);
int run_drain(const drain_options& o);
int run_secret(const secret_options& o);
int run_bench(bench_options o);
int run_compare(const compare_options& o);

} // namespace troupe::cli
