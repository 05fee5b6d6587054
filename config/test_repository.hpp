#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <unistd.h>

#include "troupe/config/load.hpp"

namespace troupe::config {

/// A directory with a cluster file and one model, "bard", removed at the end of the test.
class test_repository {
public:
  test_repository() {
    auto name = (std::filesystem::temp_directory_path() / "troupe-config-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    root_ = name;
    write("cluster.json", R"({"model_repository": "models"})");
    add_model("bard", R"({"model": "../hf"})");
  }
  ~test_repository() {
    std::error_code ec;
    std::filesystem::remove_all(root_, ec);
  }
  test_repository(const test_repository&) = delete;
  test_repository& operator=(const test_repository&) = delete;

  void add_model(const std::string& name, const std::string& model_json) {
    write("models/" + name + "/1/model.json", model_json);
    write("models/" + name + "/hf/config.json",
          "{\"max_position_embeddings\": 1024,\n \"eos_token_id\": 2}");
  }

  std::filesystem::path write(const std::string& name, const std::string& text) {
    const auto file = root_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream{file, std::ios::binary} << text;
    return file;
  }

  [[nodiscard]] std::filesystem::path at(const std::string& name) const { return root_ / name; }

  [[nodiscard]] load_result check(load_options options = {}) const {
    options.hardware_threads = options.hardware_threads == 0 ? 4 : options.hardware_threads;
    return check_cluster(at("cluster.json"), options);
  }

  /// The configuration of a cluster file that must be right.
  [[nodiscard]] cluster_config load(const load_options& options = {}) const {
    auto loaded = check(options);
    for (const auto& d : loaded.diagnostics)
      UNSCOPED_INFO(to_string(d));
    REQUIRE(loaded.config);
    return std::move(*loaded.config);
  }

private:
  std::filesystem::path root_;
};

/// The first finding about `path`, or null.
inline const diagnostic* about(const load_result& loaded, const std::string& path) {
  const auto& all = loaded.diagnostics;
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const auto& d) { return d.path == path; });
  return found == all.end() ? nullptr : &*found;
}

inline bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

} // namespace troupe::config
