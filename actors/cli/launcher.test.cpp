#include "actors/cli/local_address.hpp"
#include "actors/cli/secret.hpp"

#include <catch2/catch.hpp>

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

using namespace troupe;
using namespace troupe::cli;

TEST_CASE("this machine's addresses are known") {
  CHECK(is_local("127.0.0.1") == true);
  CHECK(is_local("127.9.8.7") == true);
  CHECK(is_local("localhost") == true);
  // TEST-NET-1 of RFC 5737 is nobody's.
  CHECK(is_local("192.0.2.1") == false);
  const auto none = is_local("no-such-host.invalid");
  REQUIRE_FALSE(none);
  CHECK(none.error().code == errc::not_found);
  CHECK(none.error().note.find("no-such-host.invalid") != std::string::npos);
}

TEST_CASE("a secret is its owner's alone and never overwritten") {
  std::string folder = (std::filesystem::temp_directory_path() / "troupe-secret-XXXXXX").string();
  REQUIRE(mkdtemp(folder.data()) != nullptr);
  const std::filesystem::path file = folder + "/secret";
  const auto content = [&] {
    std::ifstream in{file};
    return std::string{std::istreambuf_iterator<char>{in}, {}};
  };
  REQUIRE(make_secret(file));
  struct stat facts {};
  REQUIRE(::stat(file.c_str(), &facts) == 0);
  CHECK((facts.st_mode & 0777) == 0600);
  const auto first = content();
  CHECK(first.size() == 65);
  const auto again = make_secret(file);
  REQUIRE_FALSE(again);
  CHECK(again.error().code == errc::conflict);
  CHECK(content() == first);
  std::filesystem::remove(file);
  REQUIRE(make_secret(file));
  CHECK(content() != first);
  CHECK_FALSE(make_secret(folder + "/none/secret"));
  std::filesystem::remove_all(folder);
}
