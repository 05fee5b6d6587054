#include "troupe/config/backend_needs.hpp"

#include <catch2/catch.hpp>

#include <string>

#include "config/test_repository.hpp"
#include "troupe/config/load.hpp"

using namespace troupe;
using namespace troupe::config;

namespace {

constexpr auto pbtxt = "models/echo/config.pbtxt";

/// Options with a library for the backend "echo", which says `needs`.
load_options with(backend_needs needs, backend_question* asked = nullptr) {
  load_options options;
  options.gpus = 0;
  options.capabilities.ask_backend = [needs = std::move(needs),
                                      asked](const backend_question& q) -> result<backend_needs> {
    if (asked != nullptr)
      *asked = q;
    if (q.backend != "echo")
      return fail(errc::not_found,
                  "unable to find backend library for backend '" + q.backend + "'");
    return needs;
  };
  return options;
}

backend_needs echo() {
  backend_needs needs;
  needs.library = "/lib/libtroupe_echo.so";
  needs.inputs = {{"IN", tensor_type::string, {-1, 2}, false},
                  {"MORE", tensor_type::int32, {1}, true}};
  needs.outputs = {{"OUT", tensor_type::string, {-1}, false}};
  needs.max_batch_size = 4;
  needs.decoupled = false;
  return needs;
}

std::string all_of(const load_result& loaded) {
  std::string text;
  for (const auto& d : loaded.diagnostics)
    text += to_string(d) + "\n";
  return text;
}

} // namespace

TEST_CASE("what a library declares completes the model, and what was written stays") {
  test_repository repo;
  repo.write("models/echo/3/nothing", "");
  repo.write(pbtxt, "backend: \"echo\"\ninput { name: \"IN\" dims: [7, 2] }\nmax_batch_size: 2\n"
                    "parameters { key: \"k\" value { string_value: \"v\" } }");
  backend_question asked;
  const auto cluster = repo.load(with(echo(), &asked));
  CHECK(asked.model == "echo");
  CHECK(asked.version == 3);
  CHECK(asked.parameters.at("k") == "v");
  REQUIRE(cluster.custom_models.size() == 1);
  const auto& model = cluster.custom_models.front();
  CHECK(model.library == "/lib/libtroupe_echo.so");
  CHECK(*model.find_input("IN")->dims == std::vector<std::int64_t>{7, 2});
  CHECK(model.find_input("IN")->dims.from.line == 2);
  CHECK(*model.find_input("IN")->type == tensor_type::string);
  CHECK(model.find_input("IN")->type.from.kind == origin_kind::auto_completion);
  CHECK(*model.find_input("MORE")->optional);
  CHECK(*model.find_output("OUT")->dims == std::vector<std::int64_t>{-1});
  CHECK(*model.max_batch_size == 2);
  CHECK(model.decoupled.from.kind == origin_kind::auto_completion);
  const auto started = without_engine(model).back();
  CHECK(started.version == 3);
  CHECK(*started.engine.served_model_name == std::vector<std::string>{"echo"});
}

TEST_CASE("what a library cannot honour is an error with both sides") {
  struct row {
    const char* written;
    const char* complaint;
  };
  const row rows[] = {
      {"max_batch_size: 8", "specified max_batch_size 8"},
      {"model_transaction_policy { decoupled: true }", "the backend echo needs false"},
      {"input { name: \"IN\" data_type: TYPE_BOOL dims: [-1, 2] }", "is TYPE_BOOL here"},
      {"input { name: \"IN\" dims: [-1, 3] }", "dims of 'IN' is [-1, 3] here"},
      {"input { name: \"IN\" dims: [2] }", "needs [-1, 2]"},
      {"parameters { key: \"PROCESS_LIMIT_SECONDS\" value { string_value: \"1 s\" } }",
       "a number of seconds from 0.1"},
      {"parameters { key: \"PROCESS_LIMIT_SECONDS\" value { string_value: \"nan\" } }",
       "a number of seconds from 0.1"},
      {"parameters { key: \"PROCESS\" value { string_value: \"x\" } }", "must be \"shared\" or"},
  };
  for (const auto& r : rows) {
    test_repository repo;
    repo.write("models/echo/1/nothing", "");
    repo.write(pbtxt, std::string{"backend: \"echo\"\n"} + r.written);
    CAPTURE(r.written);
    CHECK(contains(all_of(repo.check(with(echo()))), r.complaint));
  }
}

TEST_CASE("batches are made where a library wants them and nobody chose otherwise") {
  struct row {
    const char* written;
    bool wants;
    std::vector<std::uint32_t> preferred;
    bool batches;
  };
  const row rows[] = {
      {"", true, {4}, true},
      {"", false, {}, false},
      {"max_batch_size: 1", true, {}, false},
      {"max_batch_size: 3 dynamic_batching { }", false, {3}, true},
      {"dynamic_batching { preferred_batch_size: [ 3, 2 ] }", true, {3, 2}, true},
      {"max_batch_size: 0 dynamic_batching { max_queue_delay_microseconds: 7 }", true, {}, true},
  };
  for (const auto& r : rows) {
    test_repository repo;
    repo.write("models/echo/1/nothing", "");
    repo.write(pbtxt, std::string{"backend: \"echo\"\n"} + r.written);
    CAPTURE(r.written);
    auto needs = echo();
    needs.dynamic_batching = r.wants;
    const auto model = repo.load(with(needs)).custom_models.at(0);
    REQUIRE(model.dynamic_batching.has_value() == r.batches);
    if (r.batches)
      CHECK(model.dynamic_batching->preferred_batch_sizes == r.preferred);
    CHECK(model.without_effect.empty() ==
          (std::string_view{r.written}.find("delay") == std::string_view::npos));
  }
}

TEST_CASE("what is not done for a library is refused by name") {
  const std::pair<const char*, const char*> rows[] = {
      {"sequence_batching { }", "not kept together"},
      {"instance_group { count: 2 } dynamic_batching { preserve_ordering: true }", "has 2"},
      {"dynamic_batching { preferred_batch_size: 5 }", "max_batch_size 4"},
  };
  for (const auto& [written, complaint] : rows) {
    test_repository repo;
    repo.write("models/echo/1/nothing", "");
    repo.write(pbtxt, std::string{"backend: \"echo\"\n"} + written);
    CAPTURE(written);
    CHECK(contains(all_of(repo.check(with(echo()))), complaint));
  }
}

TEST_CASE("a hybrid has the engine's arguments and keys of its own") {
  test_repository repo;
  backend_needs needs;
  needs.library = "/lib/libtroupe_echo.so";
  needs.base = "troupe";
  needs.own_keys = {"tenants", "absent"};
  needs.own_parameters = {"tenant"};
  repo.write("models/bard/config.pbtxt", "backend: \"echo\"");
  const std::string long_text(1000, 'x');
  repo.write("models/bard/1/model.json",
             R"({"model": "../hf", "tenants": {"a": [1, true, null, "q\"\\é)" + long_text +
                 "\"]}}");
  const auto cluster = repo.load(with(needs));
  REQUIRE(cluster.models.size() == 1);
  const auto& model = cluster.models.front();
  CHECK(contains(model.own_keys, "{\"tenants\":{\"a\": [1, true, null, \"q\\\"\\\\"));
  CHECK(contains(model.own_keys, long_text));
  CHECK(model.triton.base == "troupe");
  CHECK(model.triton.own_parameters == std::vector<std::string>{"tenant"});
  CHECK(model.triton.inputs.size() == 11);
  CHECK(*model.triton.decoupled);
  repo.write("models/bard/1/model.json", R"({"model": "../hf", "tenents": 1})");
  CHECK(contains(all_of(repo.check(with(needs))), "tenents"));
}
