#include "engine/exec/tuned_file.hpp"

#include <catch2/catch.hpp>

#include <fstream>
#include <sstream>

using troupe::engine::tuned_file;

namespace {

struct scratch {
  std::filesystem::path at = std::filesystem::temp_directory_path() / "troupe-tuned-test";
  scratch() { std::filesystem::remove_all(at); }
  ~scratch() { std::filesystem::remove_all(at); }
};

std::string text_of(const std::filesystem::path& file) {
  std::stringstream text;
  text << std::ifstream{file}.rdbuf();
  return text.str();
}

} // namespace

TEST_CASE("what was measured is there at the next start") {
  const scratch folder;
  const tuned_file file{folder.at / "new", "card A"};
  CHECK(file.read().empty());
  REQUIRE(file.add({{"1,2", "skinny"}, {"3,4", "00ff"}}));
  REQUIRE(file.add({{"3,4", "narrow"}, {"5,6", "0f"}}));
  const tuned_file again{folder.at / "new", "card A"};
  CHECK(again.read() == tuned_file::values{{"1,2", "skinny"}, {"3,4", "narrow"}, {"5,6", "0f"}});
  const tuned_file other{folder.at / "new", "card B"};
  CHECK(other.path() != file.path());
  CHECK(other.read().empty());
}

TEST_CASE("a damaged file holds nothing and is written anew") {
  const scratch folder;
  const tuned_file file{folder.at, "card"};
  REQUIRE(file.add({{"a", "1"}, {"b", "2"}}));
  const std::string whole = text_of(file.path());
  for (std::size_t length = 0; length < whole.size(); ++length) {
    std::ofstream{file.path()} << whole.substr(0, length);
    const auto found = file.read();
    // Only whole lines are ever taken.
    for (const auto& [key, value] : found)
      CHECK((key == "a" && value == "1"));
  }
  std::ofstream{file.path()} << "troupe tuned 1\nanother card\na 1\n";
  CHECK(file.read().empty());
  REQUIRE(file.add({{"c", "3"}}));
  CHECK(file.read() == tuned_file::values{{"c", "3"}});
}

TEST_CASE("where nothing can be kept, that is said and does no harm") {
  CHECK(tuned_file{"", "card"}.add({{"a", "1"}}).has_value());
  const tuned_file nowhere{"/proc/none", "card"};
  const auto failed = nowhere.add({{"a", "1"}});
  REQUIRE_FALSE(failed);
  CHECK(failed.error().note.find("/proc/none") != std::string::npos);
  CHECK(nowhere.read().empty());
}
