#include "actors/edge/kserve/paths.hpp"

#include <catch2/catch.hpp>

using namespace troupe::actors::kserve;

TEST_CASE("paths with and without a version") {
  const auto found = find_path({"models", "bard", "versions", "1", "infer"});
  REQUIRE(found);
  CHECK(found->what == operation::infer);
  CHECK(found->name == "bard");
  CHECK(found->version == "1");
}
