#include "engine/text/chat_template.hpp"

#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "troupe/base/prng.hpp"

using namespace troupe;
using namespace troupe::engine;
using json = nlohmann::ordered_json;

namespace {

constexpr auto noon = std::chrono::local_days{std::chrono::year{2024} / 2 / 9} +
                      std::chrono::hours{15} + std::chrono::minutes{4} + std::chrono::seconds{5};

result<std::string> render(const std::string& source, const json& variables,
                           const jinja::limits& bounds = {}) {
  auto made = chat_template::parse(source, "case", bounds);
  if (!made)
    return fail(made.error());
  chat_template_input in;
  in.extra = &variables;
  in.now = noon;
  return made->render(in);
}

json read_json(const std::string& path) {
  std::ifstream file(path);
  REQUIRE(file);
  return json::parse(file);
}

/// What the interpreter makes of a case, in the words of cases.json.
json outcome(const result<std::string>& got, const json& want) {
  if (got)
    return {{"output", *got}};
  const auto code = got.error().code;
  if (code == errc::invalid_argument && got.error().note.rfind("case:", 0) != 0)
    return {{"raised", got.error().note}};
  // Python's own limits are others, and it finds unknown filters sooner or later than we do.
  if (code == errc::limit_exceeded || code == errc::unsupported)
    return {{"error", want.value("error", "none")}};
  return {{"error", code == errc::invalid_argument ? "render" : "syntax"}};
}

json expected(const json& c) {
  for (const auto* key : {"output", "raised", "error"})
    if (c.contains(key))
      return {{key, c[key]}};
  return {};
}

/// Templates that cost as much as they can.
const std::vector<std::string> hostile = {
    "{{ " + std::string(100000, '(') + "1" + std::string(100000, ')') + " }}",
    "{{ " + std::string(100000, '[') + " }}",
    "{{ " + std::string(50000, '-') + "1 }}",
    "{{ 'a' * 10**9 }}",
    "{{ 'a' * 9223372036854775807 }}",
    "{{ [1] * 10**12 }}",
    "{% set x = 'aaaaaaaaaa' %}{% for i in range(99) %}{% set x = x + x %}{{ x }}{% endfor %}"
    "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}"
    "{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(40) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x | tojson }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(40) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x == [n.x[0], n.x[1]] and n.x | string }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(9999) %}{% set n.x = [n.x] %}{% endfor %}",
    "{% set n = namespace() %}{% set n.me = [n] %}{{ n }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro a0() %}xxxxxxxx{{ a1() }}{{ a1() }}{% endmacro %}"
    "{% macro a1() %}{{ a2() }}{{ a2() }}{{ a2() }}{{ a2() }}{{ a2() }}{{ a2() }}{% endmacro %}"
    "{% macro a2() %}{{ a3() }}{{ a3() }}{{ a3() }}{{ a3() }}{{ a3() }}{{ a3() }}{% endmacro %}"
    "{% macro a3() %}{{ 'y' * 9999999 }}{{ 'y' * 9999999 }}{% endmacro %}{{ a0() }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ range(10**18) }}",
    "{{ range(-9223372036854775807, 9223372036854775807, 1) }}",
    "{{ 'a' | center(10**15) }}",
    "{{ 'a\n' * 1000 | indent(10**9) }}",
    "{{ '%9999999999d' % 1 }}{{ '%.999999999f' % 1.0 }}{{ 1 / 0 }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ (-9223372036854775807 - 1) // -1 }}",
    "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
    "{{ (',' * 9000000).split(',') | join('b' * 1000) }}",
    "{% set x = 'a' * 20000000 %}{% set y = x ~ 'b' %}{% set z = y ~ x %}",
    "{% set n = namespace(l=[]) %}{% for i in range(99999) %}"
    "{% set n.l = n.l + ['a' * 100000] %}{% endfor %}",
    "{% for i in range(99999) %}{% macro m() %}{{ i }}{% endmacro %}{% for j in range(99999) %}"
    "{% set k = namespace(m=m) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ ('ab' * 1000000).rsplit('b' * 500000) }}{% endfor %}",
    "{{ range(99999) | map('string') | map('center', 90000) | list }}",
    "{{ range(99999) | unique | list }}",
    "{{ range(99999) | batch(99999, 'x') | list }}{{ range(99999) | groupby(0) }}",
    "{{ [1] | batch(10**15, 0) | list }}",
};

} // namespace

TEST_CASE("templates come out as jinja2 renders them") {
  const auto file = read_json(TROUPE_SOURCE_DIR "/engine/text/jinja/cases.json");
  std::size_t count = 0;
  for (const auto& c : file["cases"]) {
    const auto source = file["templates"][c["template"].get<std::size_t>()].get<std::string>();
    const auto got = render(source, file["contexts"][c["context"].get<std::size_t>()]);
    const auto want = expected(c);
    CAPTURE(c["group"], source, c["context"]);
    INFO((got ? *got : got.error().note));
    CHECK(outcome(got, want).dump() == want.dump());
    ++count;
  }
  CHECK(count > 500);
}

TEST_CASE("errors say which template, which line and what") {
  const auto note = [](const std::string& source) {
    const auto got = render(source, json::object());
    return got ? "rendered: " + *got : to_string(got.error());
  };
  CHECK(note("a\n\n{{ x.y }}") == "invalid_argument: case:3: 'x' is undefined");
  CHECK(note("{{ 'a' | nope }}") == "unsupported: case:1: no filter named 'nope'");
  CHECK(note("\n{{ 1 is nope }}") == "unsupported: case:2: no test named 'nope'");
  CHECK(note("\n\n{% include 'x' %}").find("unsupported: case:3: the tag 'include'") == 0);
  CHECK(note("{% extends 'x' %}").find("unsupported: case:1: the tag 'extends'") == 0);
  CHECK(note("{% import 'x' as y %}").find("unsupported: case:1: the tag 'import'") == 0);
  CHECK(note("{% if x %}\n") ==
        "corrupt_data: case:1: unexpected end of template: endif is missing");
  CHECK(note("{{ raise_exception('Only you!') }}") == "invalid_argument: Only you!");
  CHECK(note("{{ [].append(1) }}").find("invalid_argument: case:1: a template may not") == 0);
  CHECK(note("{% set x = 'a' * 10**9 %}").find("limit_exceeded: case:1: ") == 0);
  CHECK(note("{% macro m() %}\n{{ 1 + 'a' }}{% endmacro %}{{ m() }}") ==
        "invalid_argument: case:2: int + str is not possible");
}

TEST_CASE("the conversation, the tokens and the time reach the template") {
  const auto made = chat_template::parse(
      "{{ bos_token }}{{ messages[0].content }}{{ tools is none }}{{ documents }}"
      "{{ add_generation_prompt }}{{ eos_token is defined }}{{ own }}{{ strftime_now('%Y') }}",
      "t");
  REQUIRE(made);
  const json messages = json::parse(R"([{"role": "user", "content": "hi"}])");
  const json extra = json::parse(R"({"own": {"z": 1, "a": 2}})");
  chat_template_input in;
  in.messages = &messages;
  in.bos_token = "<s>";
  in.extra = &extra;
  in.now = noon;
  CHECK(made->render(in) == "<s>hiTrueNoneTrueFalse{'z': 1, 'a': 2}2024");
  in.now.reset();
  CHECK(made->render(in).error().code == errc::invalid_argument);
}

TEST_CASE("hostile templates end as errors within the limits") {
  jinja::limits bounds;
  bounds.steps_max = 1'000'000;
  const std::set<std::size_t> must_fail = {0,  2,  3,  4,  5,  7,  8,  9, 10,
                                           11, 12, 14, 15, 16, 17, 20, 25};
  for (std::size_t i = 0; i < hostile.size(); ++i) {
    const auto& source = hostile[i];
    INFO(source.substr(0, 200));
    const auto got = render(source, json::object(), bounds);
    if (got)
      CHECK(got->size() <= bounds.text_bytes_max);
    else
      CHECK(got.error().code != errc::internal);
    if (must_fail.count(i) > 0) {
      REQUIRE_FALSE(got);
      CHECK(got.error().code == errc::limit_exceeded);
    }
  }
}

TEST_CASE("hostile input of a sound template is an error") {
  json deep = 1;
  for (int i = 0; i < 5000; ++i)
    deep = json::array({std::move(deep)});
  const json extra = {{"deep", std::move(deep)}};
  CHECK(render("{{ deep }}", extra).error().code == errc::limit_exceeded);
  CHECK(render("x", json::array()).error().code == errc::invalid_argument);
  const json broken = {{"s", "\xff\xc3\xe2\x82 \xf0\x9f"}};
  CHECK(
      render("{{ s }}{{ s|length }}{{ s|upper|list|join }}{{ s[::-1]|tojson }}{{ [s] }}", broken));
}

TEST_CASE("mutated templates never crash, hang or grow without bound") {
  const auto file = read_json(TROUPE_SOURCE_DIR "/engine/text/jinja/cases.json");
  const auto& templates = file["templates"];
  const auto& contexts = file["contexts"];
  static const std::vector<std::string> pieces = {"{{",
                                                  "}}",
                                                  "{%",
                                                  "%}",
                                                  "{#",
                                                  "#}",
                                                  "-",
                                                  "+",
                                                  "|",
                                                  "(",
                                                  ")",
                                                  "[",
                                                  "]",
                                                  "{",
                                                  "}",
                                                  "'",
                                                  "\"",
                                                  "\\",
                                                  " for x in ",
                                                  " endfor ",
                                                  " if ",
                                                  " else ",
                                                  " endif ",
                                                  " is ",
                                                  " not ",
                                                  " in ",
                                                  "range(9999)",
                                                  "**",
                                                  "//",
                                                  "%",
                                                  "::",
                                                  "-1",
                                                  "9223372036854775807",
                                                  "1e308",
                                                  " loop.",
                                                  "namespace()",
                                                  " set ",
                                                  "\n",
                                                  "\xff",
                                                  "\xf0\x9f\x8e\xad",
                                                  "|tojson",
                                                  "|list",
                                                  "|map('upper')",
                                                  ".split()",
                                                  "~",
                                                  ","};
  splitmix64 rng{20240209};
  jinja::limits bounds;
  bounds.steps_max = 20'000;
  bounds.live_bytes_max = 16u << 20;
  bounds.text_bytes_max = 1u << 20;
  std::size_t rendered = 0;
  for (int round = 0; round < 6000; ++round) {
    auto source = templates[rng.below(templates.size())].get<std::string>();
    for (auto edits = 1 + rng.below(4); edits > 0; --edits) {
      const auto at = rng.below(source.size() + 1);
      const auto& other = pieces[rng.below(pieces.size())];
      const auto kind = rng.below(4);
      if (kind == 0)
        source.insert(at, other);
      else if (kind == 1)
        source.replace(at, std::min<std::size_t>(rng.below(9), source.size() - at), other);
      else if (kind == 2)
        source.erase(at, rng.below(20));
      else
        source.insert(at, source.substr(rng.below(source.size() + 1), rng.below(40)));
    }
    const auto got = render(source, contexts[rng.below(contexts.size())], bounds);
    rendered += got.has_value();
    if (!got)
      REQUIRE(got.error().code != errc::internal);
  }
  CHECK(rendered > 100);
}
