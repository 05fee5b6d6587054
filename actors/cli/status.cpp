#include "actors/cli/commands.hpp"
#include "actors/cli/generation.hpp"
#include "actors/cli/output.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <array>
#include <chrono>
#include <cstdio>
#include <thread>

namespace troupe::cli {

namespace {

using nlohmann::json;
using steady = std::chrono::steady_clock;

constexpr std::chrono::milliseconds sample_gap{500};
constexpr std::chrono::milliseconds watch_gap{1000};

int complain(const error& e) {
  std::fprintf(stderr, "troupe status: %s\n", e.note.c_str());
  return failed;
}

struct sample {
  json body;
  steady::time_point at;
};

result<sample> fetch(http_client& client) {
  const auto answer = client.call({.path = "/troupe/v1/status"});
  if (!answer)
    return fail(answer.error());
  if (answer->status != 200)
    return fail(errc::internal, message_of(*answer));
  auto body = json::parse(answer->body, nullptr, false);
  if (!body.is_object())
    return fail(errc::corrupt_data,
                "the answer is no status; is this the URL of a Troupe cluster?");
  return sample{std::move(body), steady::now()};
}

std::string text(const json& holder, const char* name) {
  const auto found = holder.find(name);
  return found != holder.end() && found->is_string() ? found->get<std::string>() : "";
}

std::uint64_t number(const json& holder, const char* name) {
  const auto found = holder.find(name);
  return found != holder.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

json list(const json& holder, const char* name) {
  const auto found = holder.find(name);
  return found != holder.end() && found->is_array() ? *found : json::array();
}

/// Tokens per second of one replica between two samples.
double rate(const sample& before, const sample& now, const json& replica) {
  const std::chrono::duration<double> gap = now.at - before.at;
  for (const auto& old : list(before.body, "replicas"))
    if (text(old, "model") == text(replica, "model") &&
        number(old, "replica") == number(replica, "replica")) {
      const auto a = number(old, "generation_tokens");
      const auto b = number(replica, "generation_tokens");
      return b > a && gap.count() > 0 ? static_cast<double>(b - a) / gap.count() : 0;
    }
  return 0;
}

void add_rates(const sample& before, sample& now) {
  for (auto& replica : now.body["replicas"])
    replica["tokens_per_s"] = rate(before, now, replica);
}

/// Bytes as people read them.
std::string size_text(std::uint64_t bytes) {
  constexpr std::array units{"B", "KiB", "MiB", "GiB", "TiB"};
  auto amount = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; amount >= 1024 && unit + 1 < units.size(); ++unit)
    amount /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", amount, units[unit]);
}

std::string or_dash(const std::string& text) { return text.empty() ? "-" : text; }

void print_nodes(const json& nodes) {
  fmt::print("{:<16} {:<22} {:<10} {:>9} {:>7} {:>10} {:>10}  {}\n", "NODE", "ADDRESS", "STATE",
             "SINCE s", "RTT us", "SENT", "RECEIVED", "LANES");
  for (const auto& n : nodes) {
    const bool wired = !text(n, "lanes").empty();
    fmt::print("{:<16} {:<22} {:<10} {:>9} {:>7} {:>10} {:>10}  {}\n", text(n, "name"),
               or_dash(text(n, "address")), text(n, "state"), number(n, "since_s"),
               wired ? std::to_string(number(n, "round_trip_us")) : "-",
               wired ? size_text(number(n, "bytes_sent")) : "-",
               wired ? size_text(number(n, "bytes_received")) : "-", or_dash(text(n, "lanes")));
  }
  for (const auto& n : nodes)
    if (!text(n, "note").empty())
      fmt::print("{} is {}: {}\n", text(n, "name"), text(n, "state"), text(n, "note"));
}

void print_replicas(const json& replicas) {
  fmt::print("\n{:<16} {:>10} {:<16} {:<12} {:>7} {:>7} {:>7} {:>10} {:>8}\n", "MODEL", "REPLICA",
             "NODE", "STATE", "RUNNING", "WAITING", "KV %", "TOKENS/s", "RESTARTS");
  for (const auto& r : replicas) {
    const auto all = number(r, "blocks_total");
    const auto used =
        all == 0 ? 0.0
                 : 100.0 * static_cast<double>(number(r, "blocks_used")) / static_cast<double>(all);
    fmt::print("{:<16} {:>10} {:<16} {:<12} {:>7} {:>7} {:>7.1f} {:>10.1f} {:>8}\n",
               text(r, "model"), number(r, "replica"), text(r, "node"), text(r, "state"),
               number(r, "running"), number(r, "waiting"), used,
               r.value("tokens_per_s", json(0.0)).get<double>(), number(r, "restarts"));
  }
}

void print_tables(const json& s) {
  fmt::print("cluster {}{}\n\n", text(s, "cluster"),
             s.value("draining", json(false)) == true ? " (draining)" : "");
  print_nodes(list(s, "nodes"));
  print_replicas(list(s, "replicas"));
  for (const auto& m : list(s, "models"))
    if (!text(m, "note").empty())
      fmt::print("{} is {}: {}\n", text(m, "name"), text(m, "state"), text(m, "note"));
}

result<void> show(const status_options& o, const sample& s) {
  if (o.json)
    fmt::print("{}\n", s.body.dump(o.watch ? -1 : 2, ' ', false, json::error_handler_t::replace));
  else
    print_tables(s.body);
  return flush_output();
}

} // namespace

int run_status(const status_options& o) {
  auto client = open_client(o.client);
  if (!client)
    return complain(client.error());
  auto before = fetch(*client);
  if (!before)
    return complain(before.error());
  auto gap = sample_gap;
  while (true) {
    std::this_thread::sleep_for(gap);
    auto now = fetch(*client);
    if (!now)
      return complain(now.error());
    if (now->body["replicas"].is_array())
      add_rates(*before, *now);
    if (o.watch && !o.json)
      fmt::print("\033[H\033[J");
    if (const auto shown = show(o, *now); !shown)
      return complain(shown.error());
    if (!o.watch)
      return good;
    before = std::move(now);
    gap = watch_gap;
  }
}

} // namespace troupe::cli
