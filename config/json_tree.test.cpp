#include "config/json_tree.hpp"

#include <catch2/catch.hpp>

#include "config/text.hpp"

using namespace troupe;
using namespace troupe::config;

namespace {

struct parsed {
  std::optional<json_value> root;
  std::vector<diagnostic> found;
};

parsed parse(std::string_view text, const json_limits& limits = {}) {
  diagnostic_sink sink;
  auto source =
      std::make_shared<const json_source>(json_source{origin_kind::user_file, "f.json", {}});
  auto root = parse_json(text, source, sink, limits);
  return {std::move(root), sink.take()};
}

} // namespace

TEST_CASE("every value knows its line") {
  const auto p =
      parse("{\n\"a\": 1,\n\"b\": [true,\n null, 2\n, \"x\"],\n\n\"c\": {\"d\": -3.5\n}}");
  REQUIRE(p.root);
  CHECK(p.root->line == 1);
  CHECK(p.root->find("a")->line == 2);
  const auto& b = *p.root->find("b");
  CHECK(b.line == 3);
  CHECK(b.items[0].line == 3);
  CHECK(b.items[1].line == 4);
  CHECK(b.items[2].line == 4);
  CHECK(b.items[3].line == 5);
  CHECK(p.root->find("c")->find("d")->line == 7);
  CHECK(p.root->find("c")->from() == origin{origin_kind::user_file, "f.json", 7, ""});
}

TEST_CASE("a number directly before the end of its line has that line") {
  const auto p = parse("[1\n,2\n,\n3\n]");
  REQUIRE(p.root);
  CHECK(p.root->items[0].line == 1);
  CHECK(p.root->items[1].line == 2);
  CHECK(p.root->items[2].line == 4);
}

TEST_CASE("numbers keep whether they were written as integers") {
  const auto p = parse("[8, 8.0, 1e3, -7, 99999999999999999999, 18446744073709551615]");
  REQUIRE(p.root);
  const auto& n = p.root->items;
  CHECK(n[0].kind == json_kind::integer);
  CHECK(n[1].kind == json_kind::real);
  CHECK(n[2].kind == json_kind::real);
  CHECK(n[3].text == "-7");
  CHECK(n[4].kind == json_kind::integer);
  CHECK(n[4].text == "99999999999999999999");
  CHECK(n[5].text == "18446744073709551615");
}

TEST_CASE("duplicate keys are errors that name both lines") {
  const auto p = parse("{\"a\": 1,\n\"b\": {\"x\": 1,\n\"x\": 2},\n\"a\": 3}");
  REQUIRE(p.found.size() == 2);
  CHECK(p.found[0].line == 3);
  CHECK(p.found[0].code == errc::conflict);
  CHECK(p.found[0].message.find("lines 2 and 3") != std::string::npos);
  CHECK(p.found[1].line == 4);
  CHECK(p.found[1].message.find("lines 1 and 4") != std::string::npos);
}

TEST_CASE("syntax errors have a line and a hint") {
  const auto [text, line, hint] = GENERATE(table<std::string, std::uint32_t, std::string>({
      {"{\n\"a\": NaN}", 2, "no NaN"},
      {"{\n\n// why\n\"a\": 1}", 3, "no comments"},
      {"{\"a\": /* x */ 1}", 1, "no comments"},
      {"", 1, "end of input"},
      {"{\"a\": 1e999}", 1, "overflow"},
      {"{\"a\": 1\n", 1, "end of input"},
      {"{\"a\": 1,}", 1, "expected string"},
      {"{} x", 1, "expected end of input"},
      {"[\"\xff\"]", 1, "UTF-8"},
  }));
  const auto p = parse(text);
  CAPTURE(text);
  CHECK_FALSE(p.root);
  REQUIRE(p.found.size() == 1);
  CHECK(p.found[0].code == errc::corrupt_data);
  CHECK(p.found[0].line >= line);
  CHECK(p.found[0].line <= line + 1);
  CAPTURE(p.found[0].message);
  CHECK(p.found[0].message.find(hint) != std::string::npos);
}

TEST_CASE("depth, size and the number of values are bounded") {
  const auto deep = parse(std::string(100'000, '['));
  REQUIRE(deep.found.size() == 1);
  CHECK(deep.found[0].code == errc::limit_exceeded);
  const auto many = parse("[1,2,3,4,5]", {.values = 5});
  REQUIRE(many.found.size() == 1);
  CHECK(many.found[0].code == errc::limit_exceeded);
  CHECK(parse("[1,2,3,4]", {.values = 5}).root);
  const auto large = parse("[1,2,3]", {.bytes = 6});
  REQUIRE(large.found.size() == 1);
  CHECK(large.found[0].code == errc::limit_exceeded);
}

TEST_CASE("values are compared and printed as JSON") {
  const auto p = parse(R"([{"a": [1, "x\ny"], "b": null}, {"b": null, "a": [1, "x\ny"]}, 1, 1.0])");
  REQUIRE(p.root);
  const auto& i = p.root->items;
  CHECK(same_value(i[0], i[1]));
  CHECK_FALSE(same_value(i[2], i[3]));
  CHECK(to_text(i[0]) == R"({"a": [1, "x\u000ay"], "b": null})");
  const auto wide = parse("[\"" + std::string(5000, 'x') + "\"]");
  CHECK(to_text(*wide.root).size() < 300);
}

TEST_CASE("the nearest name is found by edits, not by luck") {
  const std::vector<std::string_view> names{"max_num_seqs", "max_model_len", "model", "seed"};
  CHECK(nearest_name("max_num_seq", names) == "max_num_seqs");
  CHECK(nearest_name("max-num-seqs", names) == "max_num_seqs");
  CHECK(nearest_name("modle", names) == "model");
  CHECK(nearest_name("sede", names) == "seed");
  CHECK(nearest_name("temperature", names).empty());
  CHECK(nearest_name("", names).empty());
  CHECK(nearest_name(std::string(1 << 20, 'm'), names).empty());
}

TEST_CASE("clean text is UTF-8 without control characters") {
  for (const std::string text : {"", "bard", "caf\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8e\xad"})
    CHECK(is_clean_text(text));
  for (const std::string text : {"\n", "\x7f", "\x80", "\xc3", "\xc0\xaf", "\xed\xa0\x80",
                                 "\xf4\x90\x80\x80", "\xe2\x82", "\xff", "\xe0\x80\x80"})
    CHECK_FALSE(is_clean_text(text));
}

TEST_CASE("hostile text in messages is cut and made printable") {
  CHECK(in_quotes("a\nb\x1b[31m") == "'a?b?[31m'");
  CHECK(in_quotes(std::string(1000, 'x')).size() < 70);
  CHECK(in_quotes(std::string(59, 'x') + "\xc3\xa9\xc3\xa9") ==
        "'" + std::string(59, 'x') + "...'");
}
