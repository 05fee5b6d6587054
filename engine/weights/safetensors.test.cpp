#include "engine/weights/safetensors.hpp"

#include "engine/weights/mapped_file.hpp"
#include "engine/weights/test_checkpoint.hpp"
#include "engine/weights/weight_source.hpp"

#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <set>

using namespace troupe;
using namespace troupe::engine;
using test::safetensors_bytes;
using test::temporary_folder;

namespace {

const std::string good_header = R"({"__metadata__":{"format":"pt"},)"
                                R"("a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                                R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}})";
const std::string good_data = std::string(16, '\1') + std::string(6, '\2');

/// The error of opening a folder whose model.safetensors has these bytes.
error error_of(const std::string& bytes) {
  const temporary_folder folder;
  folder.write("model.safetensors", bytes);
  const auto source = open_safetensors(folder.path());
  return source ? error{errc::none, ""} : source.error();
}

std::string one_tensor(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return R"({"w":{"dtype":")" + std::string{dtype} + R"(","shape":)" + std::string{shape} +
         R"(,"data_offsets":)" + std::string{offsets} + "}}";
}

} // namespace

TEST_CASE("a safetensors file gives its tensors by name and shape") {
  const temporary_folder folder;
  folder.write("model.safetensors", safetensors_bytes(good_header, good_data));
  const auto source = open_safetensors(folder.path());
  REQUIRE(source);
  const auto a = (*source)->get({"a", {2, 2}});
  REQUIRE(a);
  CHECK(a->view.type == kernels::dtype::f32);
  CHECK(a->view.rank == 2);
  CHECK(std::memcmp(a->view.data, good_data.data(), 16) == 0);
  CHECK((*source)->unused() == std::vector<std::string>{"b"});
  const auto b = (*source)->get({"b", {3}});
  REQUIRE(b);
  CHECK(b->view.type == kernels::dtype::bf16);
  CHECK(kernels::load_as_f32(b->view.data, b->view.type, 2) == kernels::from_bf16(0x0202));
  std::string copied(6, '\0');
  const std::span part{static_cast<const std::byte*>(b->view.data), 6};
  REQUIRE((*source)->copy(part, reinterpret_cast<std::byte*>(copied.data())));
  CHECK(copied == std::string(6, '\2'));
  std::filesystem::resize_file(folder.path() / "model.safetensors", 40);
  const auto cut = (*source)->copy(part, reinterpret_cast<std::byte*>(copied.data()));
  REQUIRE_FALSE(cut);
  CHECK(cut.error().code == errc::io_failure);
  folder.write("model.safetensors", safetensors_bytes(good_header, good_data));
  (*source)->done_with(*b);
  CHECK(kernels::load_as_f32(b->view.data, b->view.type, 2) == kernels::from_bf16(0x0202));
  CHECK((*source)->unused().empty());

  const auto missing = (*source)->get({"c", {3}});
  CHECK(missing.error().code == errc::not_found);
  CHECK(missing.error().note.find("'c' of shape [3]") != std::string::npos);
  const auto shape = (*source)->get({"a", {4, 1}});
  CHECK(shape.error().code == errc::bad_shape);
  CHECK(shape.error().note.find("[2, 2]") != std::string::npos);
}

TEST_CASE("values at odd addresses are copied to where kernels may read them") {
  const temporary_folder folder;
  std::string header = one_tensor("F32", "[1]", "[0,4]");
  header += std::string((1 - header.size()) % 8, ' ');
  const float value = 1.5F;
  std::string data(4, '\0');
  std::memcpy(data.data(), &value, 4);
  folder.write("model.safetensors", safetensors_bytes(header, data));
  const auto source = open_safetensors(folder.path());
  REQUIRE(source);
  const auto w = (*source)->get({"w", {1}});
  REQUIRE(w);
  CHECK(reinterpret_cast<std::uintptr_t>(w->view.data) % 4 == 0);
  CHECK(*static_cast<const float*>(w->view.data) == value);
}

TEST_CASE("a damaged safetensors file is an error that says what is wrong") {
  struct broken {
    std::string bytes;
    std::string says;
  };
  const std::string huge(8, '\xff');
  const broken cases[] = {
      {"", "too few"},
      {"1234567", "too few"},
      {huge + good_header, "claims"},
      {safetensors_bytes(good_header, good_data).substr(0, 60), "claims"},
      {safetensors_bytes("not json at all", ""), "not JSON"},
      {safetensors_bytes("[1,2,3]  ", ""), "list instead"},
      {safetensors_bytes(good_header, good_data.substr(0, 20)), "'b'"},
      {safetensors_bytes(good_header, good_data + "x"), "cover"},
      {safetensors_bytes(one_tensor("F32", "[2]", "[0,4]"), "1234"), "needs 8 bytes"},
      {safetensors_bytes(one_tensor("F32", "[1]", "[4,0]"), "1234"), "not inside"},
      {safetensors_bytes(one_tensor("F32", "[1]", "[0,18446744073709551615]"), "1234"),
       "not inside"},
      {safetensors_bytes(one_tensor("F32", "[4294967296,4294967296,4294967296]", "[0,0]"), "12"),
       "too large"},
      {safetensors_bytes(one_tensor("F32", "[9223372036854775808]", "[0,0]"), "12"), "too large"},
      {safetensors_bytes(one_tensor("F4", "[1]", "[0,1]"), "12"), "inside a byte"},
      {safetensors_bytes(one_tensor("Q9", "[1]", "[0,1]"), "1"), "unknown dtype 'Q9'"},
      {safetensors_bytes(one_tensor("F32", "[-1]", "[0,4]"), "1234"), "negative"},
      {safetensors_bytes(one_tensor("F32", "[1.5]", "[0,4]"), "1234"), "not whole"},
      {safetensors_bytes(one_tensor("F32", "[[1]]", "[0,4]"), "1234"), "unexpected list"},
      {safetensors_bytes(one_tensor("F32", "\"x\"", "[0,4]"), "1234"), "text"},
      {safetensors_bytes(one_tensor("F32", "[1]", "[0]"), "1234"), "not a pair"},
      {safetensors_bytes(one_tensor("F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,4]"), "1234"),
       "more than 16"},
      {safetensors_bytes(R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", "1234"), "missing"},
      {safetensors_bytes(R"({"w":{"dtype":{"a":1}}})", ""), "an object inside"},
      {safetensors_bytes(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                         R"("w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                         "12"),
       "twice"},
      {safetensors_bytes(R"({"v":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                         R"("w":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                         "123"),
       "overlap"},
      {safetensors_bytes(R"({"v":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                         R"("w":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                         "123"),
       "hole"},
      {safetensors_bytes(
           R"({"__metadata__":)" + std::string(10000, '[') + std::string(10000, ']') + "}", ""),
       "list"},
      {safetensors_bytes(R"({"__metadata__":{"a":)" + std::string(10000, '[') +
                             std::string(10000, ']') + "}}",
                         ""),
       "deeper"},
  };
  for (const broken& one : cases) {
    const error e = error_of(one.bytes);
    CAPTURE(one.says, e.note);
    CHECK(e.code == errc::corrupt_data);
    CHECK(e.note.find(one.says) != std::string::npos);
    CHECK(e.note.find("model.safetensors") != std::string::npos);
  }
  CHECK(error_of(safetensors_bytes(good_header, good_data)).code == errc::none);
}

TEST_CASE("random damage to a safetensors file never does worse than an error") {
  const temporary_folder folder;
  splitmix64 random{20261123};
  const std::string good = safetensors_bytes(good_header, good_data);
  int opened = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = good;
    for (std::uint64_t i = 0; i <= random.below(3); ++i)
      bytes[random.below(bytes.size())] = static_cast<char>(random());
    if (random.below(4) == 0)
      bytes.resize(random.below(bytes.size() + 1));
    const auto file = safetensors_file::open(folder.write("x.safetensors", bytes));
    if (!file)
      continue;
    ++opened;
    std::size_t sum = 0;
    for (const auto& [name, entry] : file->entries())
      for (const std::byte b : entry.bytes)
        sum += static_cast<std::size_t>(b);
    CHECK((sum != 0 || file->entries().empty()));
    CHECK(file->identity() != 0);
  }
  // Damage to values and to metadata is not seen here.
  CHECK(opened > 100);
}

TEST_CASE("a file that becomes shorter while it is open is an error, for text and for weights") {
  const temporary_folder folder;
  const auto path = folder.write("config.json", "{\"a\": 1}" + std::string(8192, ' '));
  const auto file = mapped_file::open(path);
  REQUIRE(file);
  CHECK(file->text(7) == std::string{"{\"a\": 1"});
  CHECK(file->text(1U << 20U)->size() == 8 + 8192);
  folder.write("config.json", "{}");
  const auto text = file->text(1U << 20U);
  REQUIRE_FALSE(text);
  CHECK(text.error().code == errc::io_failure);
  CHECK(text.error().note.find("the file ends at byte 2") != std::string::npos);

  const auto weights = folder.write("model.safetensors", safetensors_bytes(good_header, good_data));
  const auto open = safetensors_file::open(weights);
  REQUIRE(open);
  const auto whole = open->identity();
  folder.write("model.safetensors", "");
  CHECK(open->identity() != whole);
}

TEST_CASE("shards are found by the index") {
  const temporary_folder folder;
  const auto index = [&](std::string_view map) {
    folder.write("model.safetensors.index.json",
                 R"({"metadata":{"total_size":8},"weight_map":)" + std::string{map} + "}");
    const auto source = open_safetensors(folder.path());
    return source ? error{errc::none, ""} : source.error();
  };
  folder.write("one.safetensors", safetensors_bytes(one_tensor("F32", "[1]", "[0,4]"), "1234"));
  folder.write(
      "two.safetensors",
      safetensors_bytes(R"({"v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "5678"));
  CHECK(index(R"({"w":"one.safetensors","v":"two.safetensors"})").code == errc::none);
  const auto source = open_safetensors(folder.path());
  REQUIRE(source);
  CHECK((*source)->get({"w", {1}}));
  CHECK((*source)->get({"v", {1}}));

  CHECK(index(R"({"w":"two.safetensors"})").note.find("'w', which the index places there") !=
        std::string::npos);
  CHECK(index(R"({"w":"three.safetensors"})").code == errc::not_found);
  CHECK(index(R"({"w":"../one.safetensors"})").code == errc::corrupt_data);
  CHECK(index(R"({"w":"/etc/passwd"})").code == errc::corrupt_data);
  CHECK(index(R"({"w":""})").code == errc::corrupt_data);
  CHECK(index(R"({"w":5})").code == errc::corrupt_data);
  CHECK(index("[]").note.find("weight_map") != std::string::npos);
  CHECK(index(R"({"w":)").code == errc::corrupt_data);
  CHECK(index(std::string(5000, '[') + std::string(5000, ']')).note.find("deeper") !=
        std::string::npos);
}

TEST_CASE("a folder without a checkpoint says what was looked for") {
  const temporary_folder folder;
  const auto source = open_safetensors(folder.path());
  REQUIRE(!source);
  CHECK(source.error().code == errc::not_found);
  CHECK(source.error().note.find("model.safetensors.index.json") != std::string::npos);
}

TEST_CASE("the identity of a checkpoint follows its values") {
  const temporary_folder folder;
  std::set<std::uint64_t> seen;
  for (const char byte : {'a', 'b', 'c'}) {
    folder.write("model.safetensors", safetensors_bytes(good_header, std::string(22, byte)));
    const auto source = open_safetensors(folder.path());
    REQUIRE(source);
    const auto again = open_safetensors(folder.path());
    REQUIRE(again);
    CHECK((*again)->identity() == (*source)->identity());
    seen.insert((*source)->identity());
  }
  CHECK(seen.size() == 3);
}

TEST_CASE("dummy weights are the same in every type, rounded to it") {
  const auto exact = make_dummy_weights({.seed = 7, .type = kernels::dtype::f32});
  for (const auto type : {kernels::dtype::bf16, kernels::dtype::f16}) {
    CAPTURE(static_cast<int>(type));
    const auto source = make_dummy_weights({.seed = 7, .type = type});
    const auto w = source->get({"w", {20, 40}});
    const auto wanted = exact->get({"w", {20, 40}});
    REQUIRE((w && wanted));
    CHECK(w->view.type == type);
    for (std::int64_t i = 0; i < w->view.size(); ++i) {
      std::uint16_t rounded = 0;
      kernels::store_f32(&rounded, type, 0,
                         kernels::load_as_f32(wanted->view.data, wanted->view.type, i));
      REQUIRE(static_cast<const std::uint16_t*>(w->view.data)[i] == rounded);
    }
  }
}

TEST_CASE("dummy weights are seeded and have the spread of a fresh model") {
  const auto source = make_dummy_weights({.seed = 7, .type = kernels::dtype::f32});
  const auto w = source->get({"w", {200, 400}});
  REQUIRE(w);
  double sum = 0;
  double squares = 0;
  for (std::int64_t i = 0; i < w->view.size(); ++i) {
    const double x = kernels::load_as_f32(w->view.data, w->view.type, i);
    sum += x;
    squares += x * x;
  }
  const double n = static_cast<double>(w->view.size());
  CHECK(std::abs(sum / n) < 1e-3);
  CHECK(std::sqrt(squares / n) == Approx(0.05).epsilon(0.02));

  const auto again =
      make_dummy_weights({.seed = 7, .type = kernels::dtype::f32})->get({"w", {200, 400}});
  const auto other_seed =
      make_dummy_weights({.seed = 8, .type = kernels::dtype::f32})->get({"w", {200, 400}});
  const auto other_name = source->get({"v", {200, 400}});
  REQUIRE((again && other_seed && other_name));
  const auto same = [&](const weight_tensor& other) {
    return std::memcmp(w->view.data, other.view.data, 200 * 400 * 4) == 0;
  };
  CHECK(same(*again));
  CHECK(!same(*other_seed));
  CHECK(!same(*other_name));
  const auto norm = source->get({"norm", {8}});
  REQUIRE(norm);
  CHECK(kernels::load_as_f32(norm->view.data, norm->view.type, 7) == 1.0F);
}
