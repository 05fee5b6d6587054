#include "actors/edge/kserve/failure.hpp"
#include "actors/edge/kserve/paths.hpp"
#include "actors/edge/kserve/service.hpp"
#include "actors/front_desk.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <thread>

using namespace troupe::actors;
using namespace troupe::actors::kserve;

TEST_CASE("paths with and without a version") {
  const auto found = find_path({"models", "bard", "versions", "1", "infer"});
  REQUIRE(found);
  CHECK(found->what == operation::infer);
  CHECK(found->name == "bard");
  CHECK(found->version == "1");
}

TEST_CASE("a long name in an error hides neither end of its sentence") {
  CHECK(without_middle("input 'a' is none", 100) == "input 'a' is none");
  const auto text = without_middle("input '" + std::string(9000, 'N') + "' is none", 100);
  CHECK(text.size() <= 100);
  CHECK(text.starts_with("input 'NNN"));
  CHECK(text.ends_with("NNN' is none"));
  CHECK(text.find(" [...] ") != std::string::npos);
  CHECK(error_json(std::string(1U << 20U, 'N')).size() < 20000);
}

TEST_CASE("the index is whole while the node publishes the next view") {
  const auto desk = std::make_shared<front_desk>();
  const auto publish = [&] {
    auto view = std::make_shared<front_view>();
    for (int i = 0; i < 16; ++i) {
      model_entry entry;
      entry.name = "a model whose name lies in memory of its own " + std::to_string(i);
      view->models.push_back(std::move(entry));
    }
    desk->publish(std::move(view));
  };
  publish();
  desk->set_repository({});
  const service asked{desk, std::make_shared<metrics>()};
  const auto told = asked.index(false);
  std::atomic<bool> done = false;
  std::thread node{[&] {
    while (!done)
      publish();
  }};
  int unlike = 0;
  for (int i = 0; i < 500; ++i)
    unlike += asked.index(false) == told ? 0 : 1;
  done = true;
  node.join();
  CHECK(unlike == 0);
  CHECK(told.find("of its own 15") != std::string::npos);
}
