#include "troupe/config/explain.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "config/reader.hpp"

namespace troupe::config {

namespace {

std::string show(bool b) { return b ? "true" : "false"; }
std::string show(double n) { return fmt::format("{}", n); }
std::string show(std::uint16_t n) { return std::to_string(n); }
std::string show(std::uint32_t n) { return std::to_string(n); }
std::string show(std::uint64_t n) { return std::to_string(n); }
std::string show(token_id n) { return std::to_string(n); }
std::string show(const std::string& s) { return fmt::format("\"{}\"", s); }
std::string show(const std::filesystem::path& p) { return fmt::format("\"{}\"", p.string()); }
std::string show(std::chrono::milliseconds t) {
  return fmt::format("{} s", static_cast<double>(t.count()) / 1000.0);
}
std::string show(const address& a) { return fmt::format("\"{}\"", to_string(a)); }
std::string show(const device& d) { return fmt::format("\"{}\"", to_string(d)); }

std::string show(dtype_choice d) {
  switch (d) {
  case dtype_choice::auto_detect:
    return "auto";
  case dtype_choice::bfloat16:
    return "bfloat16";
  case dtype_choice::float16:
    return "float16";
  case dtype_choice::float32:
    return "float32";
  }
  return "?";
}

std::string show(load_format f) {
  switch (f) {
  case load_format::auto_detect:
    return "auto";
  case load_format::safetensors:
    return "safetensors";
  case load_format::dummy:
    return "dummy";
  }
  return "?";
}

std::string show(scheduling_policy p) { return p == scheduling_policy::fcfs ? "fcfs" : "priority"; }

std::string show(routing_policy p) {
  switch (p) {
  case routing_policy::prefix:
    return "prefix";
  case routing_policy::least_loaded:
    return "least_loaded";
  case routing_policy::round_robin:
    return "round_robin";
  }
  return "?";
}

std::string show(control_mode m) {
  constexpr std::string_view names[] = {"none", "explicit", "poll"};
  return std::string{names[static_cast<std::size_t>(m)]};
}

std::string show(troupe::log_level l) {
  constexpr std::string_view names[] = {"trace", "debug",    "info", "warn",
                                        "error", "critical", "off"};
  return std::string{names[static_cast<std::size_t>(l)]};
}

template <class T>
std::string show(const std::vector<T>& all) {
  std::string text = "[";
  for (const auto& x : all)
    text += (text.size() > 1 ? ", " : "") + show(x);
  return text + "]";
}

/// Collects the rows of one object.
class rows {
public:
  rows(std::vector<explained_value>& out, std::string path) : out_{out}, path_{std::move(path)} {}

  template <class T>
  void add(std::string_view key, const setting<T>& s) {
    out_.push_back({join_path(path_, key), show(s.value), to_string(s.from)});
  }

  /// `none` says what an absent value means.
  template <class T>
  void add(std::string_view key, const setting<std::optional<T>>& s, std::string_view none) {
    out_.push_back({join_path(path_, key), s.value ? show(*s.value) : fmt::format("({})", none),
                    to_string(s.from)});
  }

private:
  std::vector<explained_value>& out_;
  std::string path_;
};

void explain_node(const node_config& node, const std::string& path,
                  std::vector<explained_value>& out) {
  rows r{out, path};
  r.add("name", node.name);
  r.add("address", node.address, "this process only");
  r.add("devices", node.devices);
  r.add("router", node.router);
  if (node.http) {
    rows http{out, path + ".edges.http"};
    http.add("host", node.http->host);
    http.add("port", node.http->port);
    http.add("max_body_bytes", node.http->max_body_bytes);
    http.add("max_header_bytes", node.http->max_header_bytes);
    http.add("max_connections", node.http->max_connections);
    http.add("header_timeout_s", node.http->header_timeout);
    http.add("idle_timeout_s", node.http->idle_timeout);
    http.add("api_keys_file", node.http->api_keys_file, "no key is asked for");
  }
  if (node.metrics) {
    rows metrics{out, path + ".edges.metrics"};
    metrics.add("host", node.metrics->host);
    metrics.add("port", node.metrics->port);
  }
  if (node.grpc) {
    rows grpc{out, path + ".edges.grpc"};
    grpc.add("host", node.grpc->host);
    grpc.add("port", node.grpc->port);
    grpc.add("api_keys_file", node.grpc->api_keys_file, "the keys of the http edge");
  }
}

void explain_engine(const engine_args& e, const std::string& path,
                    std::vector<explained_value>& out) {
  rows r{out, path};
  r.add("model", e.model);
  r.add("revision", e.revision);
  r.add("tokenizer", e.tokenizer);
  r.add("served_model_name", e.served_model_name);
  // The text of a template fills pages; that there is one is enough here.
  out.push_back({join_path(path, "chat_template"),
                 *e.chat_template ? fmt::format("({} bytes)", (*e.chat_template)->size())
                                  : "(the model's own)",
                 to_string(e.chat_template.from)});
  r.add("dtype", e.dtype);
  r.add("load_format", e.load_format);
  r.add("max_model_len", e.max_model_len, "the model's own");
  r.add("max_num_seqs", e.max_num_seqs);
  r.add("max_num_batched_tokens", e.max_num_batched_tokens, "measured at load");
  r.add("block_size", e.block_size);
  r.add("kv_cache_memory_bytes", e.kv_cache_memory_bytes, "planned at load");
  r.add("num_gpu_blocks_override", e.num_gpu_blocks_override, "from kv_cache_memory_bytes");
  r.add("gpu_memory_utilization", e.gpu_memory_utilization);
  r.add("swap_space", e.swap_space, "4 on GPUs, else 0");
  r.add("deterministic", e.deterministic);
  r.add("enable_prefix_caching", e.enable_prefix_caching);
  r.add("enable_chunked_prefill", e.enable_chunked_prefill);
  r.add("long_prefill_token_threshold", e.long_prefill_token_threshold);
  r.add("scheduling_policy", e.scheduling_policy);
  r.add("seed", e.seed);
  r.add("tensor_parallel_size", e.tensor_parallel_size);
  r.add("cpu_threads", e.cpu_threads);
}

void explain_config(const triton_model& model, explanation& out) {
  const auto file = model.config_pbtxt.empty() ? std::string{} : model.config_pbtxt.string();
  out.configs.push_back({model.name, file.empty() ? "no config.pbtxt" : file, model.lines});
  for (const auto& idle : model.without_effect)
    out.without_effect.push_back({join_path(join_path("models", model.name), idle.field), "",
                                  fmt::format("{}; {}", to_string(idle.from), idle.reason)});
}

void explain_model(const model_config& model, explanation& out) {
  const auto path = join_path("models", model.name);
  rows r{out.values, path};
  r.add("instances", model.instances);
  r.add("devices", model.devices);
  r.add("max_queued_requests", model.max_queued_requests);
  explain_engine(model.engine, path, out.values);
  r.add("generation_config", model.generation_config);
  const auto& g = model.generation;
  rows generation{out.values, path + ".generation"};
  generation.add("temperature", g.temperature);
  generation.add("top_k", g.top_k);
  generation.add("top_p", g.top_p);
  generation.add("min_p", g.min_p);
  generation.add("max_new_tokens", g.max_tokens, "what fits into max_model_len");
  generation.add("eos_token_id", g.eos_token_ids);
  for (const auto& a : model.without_effect)
    out.without_effect.push_back(
        {join_path(path, a.name), a.value, fmt::format("{}; {}", to_string(a.from), a.reason)});
  explain_config(model.triton, out);
}

/// Lays the rows out in columns; the last one is not padded.
void append_table(std::string& text, const std::vector<explained_value>& table) {
  std::size_t path_width = 0;
  std::size_t value_width = 0;
  for (const auto& row : table) {
    path_width = std::max(path_width, row.path.size());
    value_width = std::max(value_width, std::min<std::size_t>(row.value.size(), 40));
  }
  for (const auto& row : table)
    text += fmt::format("  {:<{}}  {:<{}}  {}\n", row.path, path_width, row.value, value_width,
                        row.from);
}

/// "+" marks what completion added to what was written.
void append_config(std::string& text, const explained_config& config) {
  text += fmt::format("Completed configuration of {} ({}):\n", config.model, config.file);
  std::size_t width = 0;
  for (const auto& line : config.lines)
    width = std::max(width, std::min<std::size_t>(line.text.size(), 60));
  for (const auto& line : config.lines) {
    const char mark = line.added ? '+' : ' ';
    text += line.from.empty() ? fmt::format("{} {}\n", mark, line.text)
                              : fmt::format("{} {:<{}}  {}\n", mark, line.text, width, line.from);
  }
}

} // namespace

explanation explain(const cluster_config& cluster) {
  explanation out;
  rows r{out.values, ""};
  r.add("cluster", cluster.cluster);
  r.add("secret_file", cluster.secret_file, "none");
  r.add("model_repository", cluster.model_repository);
  r.add("cache_directory", cluster.cache_directory);
  r.add("log_level", cluster.log_level);
  rows{out.values, "routing"}.add("policy", cluster.routing);
  rows{out.values, "cpu"}.add("threads", cluster.cpu_threads);
  rows limits{out.values, "limits"};
  limits.add("max_queued_requests", cluster.limits.max_queued_requests);
  limits.add("slow_reader_timeout_s", cluster.limits.slow_reader_timeout);
  limits.add("resume_limit_s", cluster.limits.resume_limit);
  limits.add("shutdown_deadline_s", cluster.limits.shutdown_deadline);
  rows control{out.values, "model_control"};
  control.add("mode", cluster.model_control.mode);
  control.add("load_models", cluster.model_control.load_models);
  control.add("poll_interval_s", cluster.model_control.poll_interval);
  if (*cluster.nodes.front().address) {
    rows wire{out.values, "wire"};
    wire.add("heartbeat_s", cluster.wire.heartbeat);
    wire.add("dead_after_s", cluster.wire.dead_after);
    wire.add("transports", cluster.wire.transports);
    wire.add("devices", cluster.wire.devices);
  }
  for (std::size_t i = 0; i < cluster.nodes.size(); ++i)
    explain_node(cluster.nodes[i], fmt::format("nodes.{}", i), out.values);
  for (const auto& model : cluster.models)
    explain_model(model, out);
  for (const auto& model : cluster.custom_models)
    explain_config(model, out);
  return out;
}

std::string render(const explanation& e, const std::vector<diagnostic>& findings) {
  std::string text;
  if (!e.values.empty()) {
    text += "Values and where they come from:\n";
    append_table(text, e.values);
  }
  for (const auto& config : e.configs)
    append_config(text, config);
  if (!e.without_effect.empty()) {
    text += "Accepted, without effect here:\n";
    append_table(text, e.without_effect);
  }
  if (!findings.empty())
    text += "Findings:\n";
  for (const auto& d : findings)
    text += fmt::format("  {}\n", to_string(d));
  return text;
}

} // namespace troupe::config
