#include "engine/weights/mapped_file.hpp"
#include "engine/weights/test_checkpoint.hpp"
#include "engine/weights/weight_source.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <functional>
#include <span>
#include <thread>
#include <tuple>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace troupe;
using namespace troupe::engine;
using namespace troupe::engine::test;

namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t file_pages = 64;

std::size_t sum_of(std::span<const std::byte> bytes) {
  std::size_t sum = 0;
  for (const std::byte b : bytes)
    sum += static_cast<std::size_t>(b);
  return sum;
}

mapped_file open_whole(const std::filesystem::path& path) {
  auto file = mapped_file::open(path);
  REQUIRE(file);
  REQUIRE(file->intact());
  return std::move(*file);
}

std::string why_not_intact(const mapped_file& file) {
  const auto good = file.intact();
  if (good)
    return "";
  CHECK(good.error().code == errc::io_failure);
  CHECK(good.error().note.find("rename") != std::string::npos);
  return good.error().note;
}

/// waitpid's status of a child that does `what`; it says nothing.
int status_of_child(const std::function<void()>& what) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(::open("/dev/null", O_WRONLY), STDERR_FILENO);
    what();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

/// Without a sanitizer the signal, with one the sanitizer's report and status.
bool died(int status) {
  return WIFSIGNALED(status) ? WTERMSIG(status) == SIGBUS : WEXITSTATUS(status) != 0;
}

/// Looks at a value of every page of all files, from the `start`-th file on.
void read_in_turns(std::span<const mapped_file> files, std::size_t start) {
  for (std::size_t i = 0; i < file_pages * files.size(); ++i) {
    const auto& file = files[(i + start) % files.size()];
    const auto at = (i * 37 + start * 11) % file_pages * page;
    const auto value = file.bytes()[at];
    if (value != std::byte{'x'} && value != std::byte{0})
      std::abort();
  }
}

} // namespace

TEST_CASE("a file that is cut under its readers is zeros and a mark, and others are as they were") {
  const temporary_folder folder;
  const auto path = folder.write("cut", std::string(8 * page, 'x'));
  const auto cut = open_whole(path);
  const auto other = open_whole(folder.write("other", std::string(8 * page, 'y')));
  std::filesystem::resize_file(path, 3 * page);
  CHECK(sum_of(cut.bytes()) == 3 * page * 'x');
  CHECK(why_not_intact(cut).find("was cut from 32768 to 12288 bytes") != std::string::npos);
  // What was cut stays so, also when the file grows again.
  folder.write("cut", std::string(8 * page, 'z'));
  CHECK(sum_of(cut.bytes().last(5 * page)) == 0);
  CHECK(why_not_intact(cut).find("cut: ") != std::string::npos);
  CHECK(sum_of(other.bytes()) == 8 * page * 'y');
  CHECK(other.intact());
  CHECK(open_whole(path).bytes().size() == 8 * page);
}

TEST_CASE("a missing page is remembered when the file has its old size and time again") {
  const temporary_folder folder;
  const auto path = folder.write("cut", std::string(2 * page, 'x'));
  const auto written = std::filesystem::last_write_time(path);
  auto cut = open_whole(path);
  std::filesystem::resize_file(path, page);
  CHECK(sum_of(cut.bytes().last(page)) == 0);
  std::filesystem::resize_file(path, 2 * page);
  std::filesystem::last_write_time(path, written);
  CHECK(why_not_intact(cut).find("a part of the file was missing") != std::string::npos);
  const mapped_file moved = std::move(cut);
  CHECK(why_not_intact(moved).find("a part of the file was missing") != std::string::npos);
}

TEST_CASE("a cut inside a page and other bytes in place bring no signal and are found") {
  const temporary_folder folder;
  const auto path = folder.write("odd", std::string(page + 100, 'x'));
  const auto old = std::filesystem::last_write_time(path) - std::chrono::hours{1};
  std::filesystem::last_write_time(path, old);
  const auto file = open_whole(path);
  std::filesystem::resize_file(path, page + 50);
  CHECK(sum_of(file.bytes()) == (page + 50) * 'x');
  CHECK(why_not_intact(file).find("was cut from 4196 to 4146 bytes") != std::string::npos);
  folder.write("odd", std::string(page + 100, 'y'));
  CHECK(why_not_intact(file).find("was written to") != std::string::npos);
}

TEST_CASE("another time of the last change alone is no change, and other values are") {
  const temporary_folder folder;
  const auto path = folder.write("kept", std::string(2 * page, 'x'));
  const auto written = std::filesystem::last_write_time(path);
  auto file = open_whole(path);
  std::filesystem::last_write_time(path, written + std::chrono::hours{1});
  CHECK(why_not_intact(file).find("was written to") != std::string::npos);
  std::filesystem::last_write_time(path, written);
  file.keep_only({file.bytes().subspan(100, page), file.bytes().last(33)});
  for (const int hours : {-2, 3, 1}) {
    std::filesystem::last_write_time(path, written + std::chrono::hours{hours});
    CHECK(file.intact());
  }
  const auto write_at = [&](::off_t at, char value) {
    const int fd = ::open(path.c_str(), O_WRONLY);
    CHECK(::pwrite(fd, &value, 1, at) == 1);
    ::close(fd);
    std::filesystem::last_write_time(path, written + std::chrono::hours{5});
  };
  // Nobody reads this byte.
  write_at(10, 'z');
  CHECK(file.intact());
  for (const ::off_t at : {::off_t{100}, ::off_t{page + 99}, ::off_t{2 * page - 1}}) {
    write_at(at, 'z');
    CHECK(why_not_intact(file).find("was written to") != std::string::npos);
    write_at(at, 'x');
    CHECK(file.intact());
  }
  const mapped_file moved = std::move(file);
  CHECK(moved.intact());
  write_at(200, 'z');
  CHECK(why_not_intact(moved).find("was written to") != std::string::npos);
}

TEST_CASE("many threads meet cuts of many files at once") {
  const temporary_folder folder;
  for (int round = 0; round < 20; ++round) {
    std::vector<mapped_file> files;
    for (int i = 0; i < 8; ++i)
      files.push_back(
          open_whole(folder.write("f" + std::to_string(i), std::string(file_pages * page, 'x'))));
    std::vector<std::thread> readers;
    for (std::size_t t = 0; t < 4; ++t)
      readers.emplace_back([&, t] { read_in_turns(files, t); });
    for (std::size_t i = 0; i < files.size(); i += 2)
      std::filesystem::resize_file(folder.path() / ("f" + std::to_string(i)), 0);
    for (auto& reader : readers)
      reader.join();
    for (std::size_t i = 0; i < files.size(); ++i)
      CHECK(files[i].intact().has_value() == (i % 2 == 1));
  }
}

TEST_CASE("faults that nobody guards end a process as before") {
  const temporary_folder folder;
  const auto guarded = open_whole(folder.write("guarded", std::string(page, 'x')));
  const auto path = folder.write("cut", std::string(2 * page, 'x'));
  const auto read_unguarded = [&] {
    const int fd = ::open(path.c_str(), O_RDWR);
    auto* const at =
        static_cast<volatile char*>(::mmap(nullptr, 2 * page, PROT_READ, MAP_PRIVATE, fd, 0));
    if (at == MAP_FAILED || ::ftruncate(fd, 0) != 0)
      return;
    [[maybe_unused]] const char read = at[page];
  };
  CHECK(died(status_of_child(read_unguarded)));
  CHECK(died(status_of_child([] { std::raise(SIGBUS); })));
  CHECK(status_of_child([] {}) == 0);
  // A mapping in the place of one that was guarded is nobody's.
  CHECK(died(status_of_child([&] {
    for (int i = 0; i < 3; ++i)
      std::ignore = mapped_file::open(folder.path() / "guarded");
    read_unguarded();
  })));
}

TEST_CASE("a checkpoint tells of changes while it loads, and then of the files that are read") {
  const temporary_folder folder;
  const auto tensor_of = [](std::string_view name) {
    std::string header =
        "{\"" + std::string{name} + R"(":{"dtype":"F32","shape":[1024],"data_offsets":[0,4096]}})";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    return header;
  };
  const auto write_all = [&] {
    folder.write("model.safetensors.index.json",
                 R"({"weight_map":{"copied":"one.safetensors","kept":"two.safetensors"}})");
    for (const auto& [name, file] :
         {std::pair{"copied", "one.safetensors"}, {"kept", "two.safetensors"}})
      folder.write(file, safetensors_bytes(tensor_of(name), std::string(page, 'x')));
  };
  write_all();
  auto opened = open_safetensors(folder.path());
  REQUIRE(opened);
  auto& source = **opened;
  const auto copied = source.get({"copied", {1024}});
  const auto kept = source.get({"kept", {1024}});
  REQUIRE(copied);
  REQUIRE(kept);
  source.done_with(*copied);
  REQUIRE(source.settle());
  REQUIRE(source.intact());
  CHECK(source.get({"copied", {1024}}).error().code == errc::not_found);
  // Nobody reads this file any more.
  std::filesystem::resize_file(folder.path() / "one.safetensors", 0);
  CHECK(source.intact());
  std::filesystem::resize_file(folder.path() / "two.safetensors", 0);
  CHECK(sum_of(std::as_bytes(std::span{static_cast<const float*>(kept->view.data), 1024})) == 0);
  const auto torn = source.intact();
  REQUIRE_FALSE(torn);
  CHECK(torn.error().note.find("two.safetensors: the file was cut") != std::string::npos);

  write_all();
  auto again = open_safetensors(folder.path());
  REQUIRE(again);
  std::filesystem::resize_file(folder.path() / "one.safetensors", 100);
  const auto half = (*again)->settle();
  REQUIRE_FALSE(half);
  CHECK(half.error().note.find("one.safetensors: the file was cut") != std::string::npos);
}
