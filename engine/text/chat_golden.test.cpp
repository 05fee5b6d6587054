#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/text/chat_template.hpp"

using namespace troupe;
using namespace troupe::engine;
using json = nlohmann::ordered_json;

namespace {

const std::filesystem::path folder = TROUPE_SOURCE_DIR "/tests/golden/data/chat";

json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  REQUIRE(file);
  return json::parse(file);
}

/// "2024-02-09T15:04:05" or with a space between.
std::chrono::local_seconds read_time(const std::string& text) {
  const auto number = [&](std::size_t at, std::size_t size) {
    return at + size <= text.size() ? std::stoi(text.substr(at, size)) : 0;
  };
  namespace ch = std::chrono;
  const ch::local_days day{ch::year{number(0, 4)} / number(5, 2) / number(8, 2)};
  return day + ch::hours{number(11, 2)} + ch::minutes{number(14, 2)} + ch::seconds{number(17, 2)};
}

result<std::string> render(const chat_template& made, const json& file, const json& c) {
  const auto& talk = file["conversations"][c["conversation"].get<std::string>()];
  json extra = file["specials"];
  if (talk.contains("arguments") && talk["arguments"].is_object())
    for (auto it = talk["arguments"].begin(); it != talk["arguments"].end(); ++it)
      extra[it.key()] = *it;
  const auto given = [&](const char* name) {
    return talk.contains(name) && !talk[name].is_null() ? &talk[name] : nullptr;
  };
  chat_template_input in;
  in.messages = given("messages");
  in.tools = given("tools");
  in.documents = given("documents");
  in.add_generation_prompt = c["add_generation_prompt"].get<bool>();
  in.extra = &extra;
  in.now = read_time(file["now"].get<std::string>());
  return made.render(in);
}

} // namespace

TEST_CASE("chat templates come out as transformers renders them") {
  const auto file = read_json(folder / "conversations.json");
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename() == "conversations.json")
      continue;
    const auto golden = read_json(entry.path());
    const auto name = golden["name"].get<std::string>();
    const auto made = chat_template::parse(golden["template"].get<std::string>(), name);
    INFO(name << (made ? "" : ": " + made.error().note));
    // It needs integers of any length, which are refused by name here (see jinja/README.md).
    if (name == "rare") {
      REQUIRE_FALSE(made);
      CHECK(made.error().note == "rare:10: an integer that does not fit 64 bits");
      continue;
    }
    REQUIRE(made);
    for (const auto& c : golden["cases"]) {
      const auto got = render(*made, file, c);
      INFO(c["conversation"] << " " << c["add_generation_prompt"]);
      INFO((got ? *got : got.error().note));
      ++count;
      if (c.contains("expected")) {
        CHECK((got && *got == c["expected"].get<std::string>()));
        continue;
      }
      REQUIRE_FALSE(got);
      CHECK(got.error().code == errc::invalid_argument);
      if (c["error"] == "raised")
        CHECK(got.error().note == c["message"].get<std::string>());
    }
  }
  CHECK(count > 100);
}
