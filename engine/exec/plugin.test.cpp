#include "engine/exec/plugin.hpp"

#include "engine/weights/test_checkpoint.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace troupe;
using namespace troupe::engine;
namespace fs = std::filesystem;

namespace {

/// The library of that name in the folders that are looked through; empty when there is none.
fs::path library(const std::string& name) {
  for (const fs::path& folder : plugin_folders())
    if (fs::exists(folder / name))
      return folder / name;
  return {};
}

bool says(const error& e, std::string_view what) { return e.note.find(what) != std::string::npos; }

} // namespace

TEST_CASE("a library of executors that is not there is named with the folders") {
  const auto none = find_plugin("libtroupe_nothing.so");
  REQUIRE(!none);
  CHECK(none.error().code == errc::not_found);
  CHECK(says(none.error(), "libtroupe_nothing.so"));
  CHECK(says(none.error(), "/lib"));
  CHECK(says(none.error(), "cmake --preset cuda"));
  CHECK(open_plugin("/nowhere/libtroupe_cuda.so").error().code == errc::not_found);
}

TEST_CASE("a library of another build is refused") {
  const auto other = open_plugin(library("libtroupe_test_other_version.so"));
  REQUIRE(!other);
  CHECK(other.error().code == errc::conflict);
  CHECK(says(other.error(), "interface 999 of 'another build'"));
}

TEST_CASE("a library that holds no executors is refused") {
  const auto none = open_plugin(library("libtroupe_test_no_entry.so"));
  REQUIRE(!none);
  CHECK(none.error().code == errc::conflict);
  CHECK(says(none.error(), "troupe_executor_plugin"));
}

TEST_CASE("a file that is no library is refused with the system's reason") {
  const test::temporary_folder folder;
  const auto file = folder.write("libtroupe_cuda.so", "not a library");
  const auto none = open_plugin(file);
  REQUIRE(!none);
  CHECK(none.error().code == errc::io_failure);
  CHECK(says(none.error(), "libtroupe_cuda.so"));
}

TEST_CASE("asking for a GPU where there is none is an error that says so") {
  if (fs::exists("/dev/nvidia0"))
    return;
  for (const char* kind : {"cuda", "cuda:0", "cuda:7", "cuda:x"}) {
    const auto none = make_executor(kind, {});
    REQUIRE(!none);
    CAPTURE(none.error().note);
    if (library("libtroupe_cuda.so").empty()) {
      CHECK(none.error().code == errc::not_found);
      CHECK(says(none.error(), "libtroupe_cuda.so"));
    } else if (std::string_view{kind} == "cuda:x") {
      CHECK(none.error().code == errc::invalid_argument);
      CHECK(says(none.error(), "'x'"));
    } else {
      CHECK((none.error().code == errc::not_found || none.error().code == errc::unsupported));
      CHECK(says(none.error(), kind == std::string_view{"cuda:7"} ? "cuda:7" : "cuda:0"));
      CHECK((says(none.error(), "driver") || says(none.error(), "GPU")));
    }
  }
  CHECK(make_executor("cpu:0", {}).error().code == errc::not_found);
}
