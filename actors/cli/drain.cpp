#include "actors/cli/commands.hpp"
#include "actors/cli/generation.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdio>
#include <thread>

namespace troupe::cli {

namespace {

using nlohmann::json;
using steady = std::chrono::steady_clock;

constexpr std::chrono::milliseconds look_again{100};
/// After its deadline: for what was handed over, and for the news to arrive.
constexpr std::chrono::seconds patience{10};

int complain(const std::string& why) {
  std::fprintf(stderr, "troupe drain: %s\n", why.c_str());
  return failed;
}

/// The state of a node as the cluster shows it; empty when it shows none.
std::string state_in(const json& body, const std::string& name) {
  if (!body.is_object() || !body.contains("nodes") || !body["nodes"].is_array())
    return "";
  for (const auto& node : body["nodes"])
    if (node.is_object() && node.value("name", json("")) == name &&
        node.value("state", json("")).is_string())
      return node["state"].get<std::string>();
  return "";
}

} // namespace

int run_drain(const drain_options& o) {
  auto client = open_client(o.client);
  if (!client)
    return complain(client.error().note);
  const auto body = json{{"node", o.node}, {"deadline_s", o.deadline_s}, {"stay", o.stay}}.dump();
  const auto told = client->call({.method = "POST", .path = "/troupe/v1/drain", .body = body});
  if (!told)
    return complain(told.error().note);
  constexpr unsigned accepted = 202;
  if (told->status != accepted)
    return complain(message_of(*told));
  fmt::print("node '{}' takes no new requests; what runs has {} s to end\n", o.node, o.deadline_s);
  std::fflush(stdout);
  const auto end = steady::now() + patience +
                   std::chrono::milliseconds{static_cast<std::int64_t>(1000 * o.deadline_s)};
  while (steady::now() < end) {
    std::this_thread::sleep_for(look_again);
    const auto answer = client->call({.path = "/troupe/v1/status"});
    // The front that was asked may be the one that ends.
    const auto state = answer ? state_in(json::parse(answer->body, nullptr, false), o.node) : "";
    if (answer && state != "drained" && state != "down" && !state.empty())
      continue;
    fmt::print("node '{}' is drained{}\n", o.node, o.stay ? "" : " and has ended");
    return good;
  }
  return complain(
      fmt::format("node '{}' is not empty yet; troupe status shows what it does", o.node));
}

} // namespace troupe::cli
