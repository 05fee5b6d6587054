#include "troupe/config/load.hpp"

#include "config/test_repository.hpp"

using namespace troupe;
using namespace troupe::config;
namespace fs = std::filesystem;

TEST_CASE("a file with only a model repository is complete") {
  const test_repository repo;
  const auto cluster = repo.load();
  CHECK(*cluster.model_repository == repo.at("models"));
  CHECK(cluster.model_repository.from.line == 1);
  REQUIRE(cluster.nodes.size() == 1);
  const auto& node = cluster.nodes[0];
  CHECK(*node.name == "local");
  CHECK(*node.router);
  CHECK(*node.devices == std::vector<device>{{device_kind::cpu, 0}});
  REQUIRE(node.http);
  CHECK(*node.http->host == "127.0.0.1");
  CHECK(*node.http->port == 8000);
  CHECK_FALSE(node.metrics);
  REQUIRE(cluster.models.size() == 1);
  CHECK(cluster.models[0].name == "bard");
  CHECK(*cluster.models[0].engine.model == repo.at("models/bard/hf"));
  CHECK(*cluster.models[0].engine.cpu_threads == 4);
  CHECK(find_node(cluster, "local") == &node);
  CHECK(find_node(cluster, "other") == nullptr);
  CHECK(find_model(cluster, "bard") == &cluster.models[0]);
  CHECK(find_model(cluster, "tempest") == nullptr);
}

TEST_CASE("every value of the cluster file is read") {
  test_repository repo;
  const auto keys = repo.write("keys", "sha256:00 me\n");
  fs::permissions(keys, fs::perms::owner_read);
  repo.write("cluster.json", R"({
    "cluster": "globe", "model_repository": "models", "log_level": "debug",
    "nodes": [{"name": "front", "devices": ["cpu"], "edges": {
      "http": {"host": "0.0.0.0", "port": 0, "max_body_bytes": 2048, "max_header_bytes": 4096,
               "max_connections": 7, "header_timeout_s": 1.5, "idle_timeout_s": 2,
               "api_keys_file": "keys"},
      "metrics": 9100, "grpc": {"host": "::1", "port": 9101, "api_keys_file": "keys"}}}],
    "models": {"bard": {"instances": 2, "tensor_parallel": 1, "max_queued_requests": 9}},
    "routing": {"policy": "round_robin"}, "cpu": {"threads": 3},
    "limits": {"max_queued_requests": 5, "slow_reader_timeout_s": 0.25, "shutdown_deadline_s": 60,
               "resume_limit_s": 2.5}
  })");
  load_options options;
  options.capabilities.grpc = true;
  const auto cluster = repo.load(options);
  using std::chrono::milliseconds;
  CHECK(*cluster.cluster == "globe");
  CHECK(*cluster.log_level == log_level::debug);
  CHECK(*cluster.routing == routing_policy::round_robin);
  CHECK(*cluster.limits.max_queued_requests == 5);
  CHECK(*cluster.limits.slow_reader_timeout == milliseconds{250});
  CHECK(*cluster.limits.shutdown_deadline == milliseconds{60'000});
  CHECK(*cluster.limits.resume_limit == milliseconds{2500});
  const auto& http = cluster.nodes.at(0).http.value();
  CHECK(*http.host == "0.0.0.0");
  CHECK(*http.port == 0);
  CHECK(http.port.from.line == 4);
  CHECK(*http.max_body_bytes == 2048);
  CHECK(*http.max_header_bytes == 4096);
  CHECK(*http.max_connections == 7);
  CHECK(*http.header_timeout == milliseconds{1500});
  CHECK(*http.idle_timeout == milliseconds{2000});
  CHECK(*http.api_keys_file == keys);
  CHECK(*cluster.nodes.at(0).metrics.value().port == 9100);
  const auto& grpc = cluster.nodes.at(0).grpc.value();
  CHECK(*grpc.host == "::1");
  CHECK(*grpc.port == 9101);
  CHECK(*grpc.api_keys_file == keys);
  const auto& bard = cluster.models.at(0);
  CHECK(*bard.instances == 2);
  CHECK(*bard.max_queued_requests == 9);
  CHECK(*bard.engine.cpu_threads == 3);
  CHECK(bard.engine.cpu_threads.from.line == 9);
}

TEST_CASE("a file of several nodes is read when the build can serve it") {
  test_repository repo;
  const auto secret = repo.write("globe.secret", "sixteen bytes or more");
  fs::permissions(secret, fs::perms::owner_read | fs::perms::owner_write);
  repo.write("cluster.json", R"({
    "secret_file": "globe.secret", "model_repository": "models",
    "nodes": [
      {"name": "front", "address": "10.0.0.1:7600", "edges": {"http": 8000}, "router": true},
      {"name": "stage", "address": "[fd00::2]:7600", "devices": ["cuda:0", "cuda:1"]}],
    "models": {"bard": {"tensor_parallel": 2}}, "routing": {"policy": "prefix"}})");
  load_options options;
  options.capabilities = {.cuda = true, .max_tensor_parallel_size = 2};
  const auto cluster = repo.load(options);
  CHECK(*cluster.secret_file == secret);
  REQUIRE(cluster.nodes.size() == 2);
  CHECK(cluster.nodes[0].devices->empty());
  CHECK_FALSE(*cluster.nodes[1].router);
  CHECK_FALSE(cluster.nodes[1].http);
  CHECK(*cluster.nodes[1].address == address{"fd00::2", 7600});
  CHECK(to_string(**cluster.nodes[1].address) == "[fd00::2]:7600");
  CHECK(cluster.nodes[1].devices->at(1) == device{device_kind::cuda, 1});
  CHECK(*cluster.models[0].engine.tensor_parallel_size == 2);
  options.capabilities = {.cuda = false, .max_tensor_parallel_size = 1};
  const auto without = repo.check(options);
  CHECK(about(without, "nodes.1.devices.0")->code == errc::unsupported);
  CHECK(about(without, "models.bard.tensor_parallel_size")->code == errc::unsupported);
}

TEST_CASE("every mistake is found in one pass") {
  test_repository repo;
  repo.write("cluster.json", R"({
"cluster": 7,
"model_repository": "models", "log_level": "inf",
"nodes": [
{"name": "a", "address": "10.0.0.1", "edges": {"http": 8000, "grpc": 8001, "metrics": 8000}},
{"name": "a", "address": "b:70000", "devices": ["gpu", "cpu", "cpu"], "router": "yes"},
{"address": "c:1", "router": true, "edges": {"http": {"prot": 1, "port": -1, "idle_timeout_s": 0}}}],
"models": {"bart": {}, "bard": {"instances": -1, "seed": 1e3, "max_num_seqs": 8.0}},
"limits": {"max_queued_requests": 0, "resume_limit_s": 0}, "routing": {"policy": "prefx"}, "moels": 1})");
  const auto loaded = repo.check();
  CHECK_FALSE(loaded.config);
  const auto [path, line, code, part] = GENERATE(table<std::string, int, errc, std::string>({
      {"cluster", 2, errc::invalid_argument, "string"},
      {"log_level", 3, errc::invalid_argument, "did you mean 'info'"},
      {"secret_file", 4, errc::invalid_argument, "missing"},
      {"nodes.0.address", 5, errc::invalid_argument, "host:port"},
      {"nodes.0.edges.grpc", 5, errc::unsupported, "gRPC"},
      {"nodes.0.edges", 5, errc::conflict, "port 8000"},
      {"nodes.0.edges.http", 5, errc::conflict, "router"},
      {"nodes.1.name", 6, errc::conflict, "cluster.json:5"},
      {"nodes.1.address", 6, errc::invalid_argument, "host:port"},
      {"nodes.1.devices.0", 6, errc::invalid_argument, "cpu or cuda"},
      {"nodes.1.devices.2", 6, errc::conflict, "twice"},
      {"nodes.1.router", 6, errc::invalid_argument, "true or false"},
      {"nodes.2.name", 7, errc::invalid_argument, "missing"},
      {"nodes.2.edges.http.port", 7, errc::invalid_argument, "0 to 65535"},
      {"nodes.2.edges.http.idle_timeout_s", 7, errc::invalid_argument, "0.001"},
      {"nodes.2.edges.http.prot", 7, errc::invalid_argument, "unknown key"},
      {"models.bart", 8, errc::not_found, "did you mean 'bard'"},
      {"models.bard.instances", 8, errc::invalid_argument, "1 to 1024"},
      {"models.bard.seed", 8, errc::invalid_argument, "1e3"},
      {"models.bard.max_num_seqs", 8, errc::invalid_argument, "8.0"},
      {"limits.max_queued_requests", 9, errc::invalid_argument, "not '0'"},
      {"limits.resume_limit_s", 9, errc::invalid_argument, "0.001"},
      {"routing.policy", 9, errc::invalid_argument, "did you mean 'prefix'"},
      {"moels", 9, errc::invalid_argument, "unknown key"},
  }));
  CAPTURE(path);
  const auto* d = about(loaded, path);
  REQUIRE(d != nullptr);
  CHECK(d->file == repo.at("cluster.json").string());
  CHECK(d->line == static_cast<std::uint32_t>(line));
  CHECK(d->code == code);
  CAPTURE(d->message);
  CHECK(contains(d->message, part));
}

TEST_CASE("load_cluster joins all errors into one note") {
  test_repository repo;
  repo.write("cluster.json", "{\"model_repository\": \"none\",\n\"cluster\": 1}");
  const auto loaded = load_cluster(repo.at("cluster.json"), {});
  REQUIRE_FALSE(loaded);
  CHECK(loaded.error().code == errc::not_found);
  CHECK(contains(loaded.error().note, "cluster.json:1: error: model_repository"));
  CHECK(contains(loaded.error().note, "\n"));
  CHECK(contains(loaded.error().note, "cluster.json:2: error: cluster"));
}

TEST_CASE("what the system refuses is said with the file's name") {
  test_repository repo;
  const auto code_of = [](const fs::path& file) {
    const auto loaded = load_cluster(file, {});
    REQUIRE_FALSE(loaded);
    CHECK(contains(loaded.error().note, file.string()));
    return loaded.error().code;
  };
  CHECK(code_of(repo.at("no.json")) == errc::not_found);
  CHECK(code_of("/dev/null") == errc::io_failure);
  CHECK(code_of(repo.write("broken.json", "{\"a\": ")) == errc::corrupt_data);
  CHECK(code_of(repo.write("large.json", std::string((1U << 20U) + 1, ' '))) ==
        errc::limit_exceeded);
}

TEST_CASE("secrets that others may read are refused") {
  test_repository repo;
  const auto secret = repo.write("s", "sixteen bytes are enough\n");
  repo.write("cluster.json", R"({"model_repository": "models", "secret_file": "s",
    "edges": {"http": {"api_keys_file": "none"}}})");
  fs::permissions(secret, fs::perms::owner_read | fs::perms::group_read);
  const auto open = repo.check();
  REQUIRE(about(open, "secret_file") != nullptr);
  CHECK(about(open, "secret_file")->code == errc::unauthorized);
  CHECK(contains(about(open, "secret_file")->message, "chmod 600"));
  REQUIRE(about(open, "edges.http.api_keys_file") != nullptr);
  CHECK(about(open, "edges.http.api_keys_file")->code == errc::not_found);
  fs::permissions(secret, fs::perms::owner_read);
  CHECK(about(repo.check(), "secret_file") == nullptr);
  fs::remove(secret);
  REQUIRE(about(repo.check(), "secret_file") != nullptr);
  CHECK(about(repo.check(), "secret_file")->code == errc::not_found);
  CHECK(contains(about(repo.check(), "secret_file")->message, "troupe secret"));
  load_options maker;
  maker.will_make_secret = true;
  CHECK(about(repo.check(maker), "secret_file") == nullptr);
  repo.write("s", "too short\n");
  fs::permissions(secret, fs::perms::owner_read);
  REQUIRE(about(repo.check(), "secret_file") != nullptr);
  CHECK(contains(about(repo.check(), "secret_file")->message, "holds 9 bytes"));
}

TEST_CASE("the wire's clocks must fit together") {
  test_repository repo;
  repo.write("cluster.json", R"({"model_repository": "models",
    "wire": {"heartbeat_s": 0.5, "dead_after_s": 2, "devices": "eth0", "transports": "tcp"}})");
  const auto cluster = repo.load();
  CHECK(*cluster.wire.heartbeat == std::chrono::milliseconds{500});
  CHECK(*cluster.wire.dead_after == std::chrono::milliseconds{2000});
  CHECK(*cluster.wire.devices == "eth0");
  CHECK(*cluster.wire.transports == "tcp");
  repo.write("cluster.json",
             R"({"model_repository": "models", "wire": {"heartbeat_s": 1, "dead_after_s": 1.5}})");
  REQUIRE(about(repo.check(), "wire.dead_after_s") != nullptr);
  CHECK(about(repo.check(), "wire.dead_after_s")->code == errc::conflict);
}

TEST_CASE("a grpc edge is a port or an object, and shares no port") {
  test_repository repo;
  load_options options;
  options.capabilities.grpc = true;
  const auto check = [&](const std::string& edges) {
    repo.write("cluster.json", R"({"model_repository": "models", "edges": )" + edges + "}");
    return repo.check(options);
  };
  CHECK(*check(R"({"grpc": 8001})").config->nodes.at(0).grpc->port == 8001);
  CHECK(*check(R"({"grpc": {}})").config->nodes.at(0).grpc->host == "127.0.0.1");
  CHECK_FALSE(check(R"({"http": 1})").config->nodes.at(0).grpc);
  CHECK_FALSE(check(R"({"grpc": false})").config->nodes.at(0).grpc);
  CHECK(about(check(R"({"http": 81, "grpc": 81})"), "edges")->code == errc::conflict);
  CHECK(about(check(R"({"metrics": 81, "grpc": 81})"), "edges")->code == errc::conflict);
  CHECK(about(check(R"({"grpc": {"prot": 1}})"), "edges.grpc.prot") != nullptr);
  CHECK(about(check(R"({"grpc": 65536})"), "edges.grpc") != nullptr);
  options.capabilities.grpc = false;
  CHECK(about(check(R"({"grpc": 8001})"), "edges.grpc")->code == errc::unsupported);
}

TEST_CASE("a repository without a file has Triton's three ports") {
  test_repository repo;
  load_options options;
  const auto node_with = [&](bool grpc, std::vector<std::string> set) {
    options.capabilities.grpc = grpc;
    options.set = std::move(set);
    const auto read = check_cluster(repo.at("models"), options);
    REQUIRE(read.config);
    return read.config->nodes.at(0);
  };
  auto node = node_with(true, {});
  CHECK(*node.http->port == 8000);
  CHECK(*node.grpc->port == 8001);
  CHECK(*node.metrics->port == 8002);
  CHECK_FALSE(is_explicit(node.grpc->port.from));
  node = node_with(true, {"edges.http.port=9000", "edges.http.host=\"0.0.0.0\""});
  CHECK(*node.grpc->port == 9001);
  CHECK(*node.grpc->host == "0.0.0.0");
  CHECK(*node.metrics->port == 9002);
  node = node_with(true, {"edges.http.port=0"});
  CHECK(*node.grpc->port == 0);
  CHECK(*node.metrics->port == 0);
  node = node_with(true, {"edges.http.port=65534"});
  CHECK(*node.grpc->port == 65'535);
  CHECK(*node.metrics->port == 0);
  node = node_with(true, {"edges.grpc=7001", "edges.metrics=false"});
  CHECK(*node.http->port == 8000);
  CHECK(*node.grpc->port == 7001);
  CHECK_FALSE(node.metrics);
  node = node_with(false, {});
  CHECK_FALSE(node.grpc);
  CHECK(*node.metrics->port == 8002);
}

TEST_CASE("edges of a file with nodes belong into a node") {
  test_repository repo;
  repo.write("cluster.json",
             R"({"model_repository": "models", "nodes": [{"name": "a"}], "edges": {"http": 1}})");
  REQUIRE(about(repo.check(), "edges") != nullptr);
  CHECK(about(repo.check(), "edges")->code == errc::conflict);
  repo.write("cluster.json", R"({"model_repository": "models", "nodes": []})");
  CHECK(about(repo.check(), "nodes") != nullptr);
  repo.write("cluster.json", R"({"model_repository": "models", "edges": {"http": false}})");
  CHECK_FALSE(repo.load().nodes[0].http);
}

TEST_CASE("a flood of mistakes is cut off, and that is said") {
  test_repository repo;
  std::string text = "{\"model_repository\": \"models\"";
  for (int i = 0; i < 5000; ++i)
    text += ",\n\"k" + std::to_string(i) + "\": 0";
  repo.write("cluster.json", text + "}");
  const auto loaded = repo.check();
  CHECK_FALSE(loaded.config);
  CHECK(loaded.diagnostics.size() <= 101);
}

TEST_CASE("addresses are unique") {
  test_repository repo;
  repo.write("cluster.json", R"({"model_repository": "models", "nodes": [
    {"name": "a", "address": "h:1", "router": true},
    {"name": "b", "address": "h:2"},
    {"name": "c", "address": "h:1"}]})");
  const auto loaded = repo.check();
  REQUIRE(about(loaded, "nodes.2.address") != nullptr);
  CHECK(about(loaded, "nodes.2.address")->code == errc::conflict);
  CHECK(contains(about(loaded, "nodes.2.address")->message, "cluster.json:2"));
  CHECK(about(loaded, "nodes.1.address") == nullptr);
}

TEST_CASE("a list of no models is not all models") {
  test_repository repo;
  repo.write("cluster.json", R"({"model_repository": "models", "models": {}})");
  REQUIRE(about(repo.check(), "models") != nullptr);
  repo.write("cluster.json", R"({"model_repository": "models", "models": null})");
  CHECK(repo.load().models.size() == 1);
}

TEST_CASE("an empty repository is an error") {
  test_repository repo;
  fs::remove_all(repo.at("models/bard"));
  const auto loaded = repo.check();
  REQUIRE(about(loaded, "model_repository") != nullptr);
  CHECK(about(loaded, "model_repository")->code == errc::not_found);
}
