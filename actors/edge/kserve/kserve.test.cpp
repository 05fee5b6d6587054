#include "actors/edge/kserve/failure.hpp"
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

TEST_CASE("a long name in an error hides neither end of its sentence") {
  CHECK(without_middle("input 'a' is none", 100) == "input 'a' is none");
  const auto text = without_middle("input '" + std::string(9000, 'N') + "' is none", 100);
  CHECK(text.size() <= 100);
  CHECK(text.starts_with("input 'NNN"));
  CHECK(text.ends_with("NNN' is none"));
  CHECK(text.find(" [...] ") != std::string::npos);
  CHECK(error_json(std::string(1U << 20U, 'N')).size() < 20000);
}
