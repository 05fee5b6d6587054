#include "troupe/config/agreement.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>

#include "config/files.hpp"
#include "config/reader.hpp"
#include "troupe/config/explain.hpp"

namespace troupe::config {

namespace {

/// More models than this share one part: a hello has room for 64.
constexpr std::size_t most_model_parts = 48;
constexpr std::size_t most_config_bytes = 1U << 20U;

/// A machine's own.
constexpr std::array<std::string_view, 5> local{"instances", "model", "tokenizer", "cpu_threads",
                                                "swap_space"};
/// What the same request's tokens depend on.
constexpr std::array<std::string_view, 4> numeric{"dtype", "deterministic", "seed", "load_format"};

/// FNV-1a: this tells mistakes apart, not enemies.
class digest {
public:
  void add(std::string_view text) {
    for (const unsigned char c : text)
      step(c);
    step(0);
  }
  [[nodiscard]] std::uint64_t value() const noexcept { return hash_; }

private:
  void step(unsigned char c) { hash_ = (hash_ ^ c) * 0x100000001B3U; }
  std::uint64_t hash_ = 0xCBF29CE484222325U;
};

bool is_one_of(std::string_view key, std::span<const std::string_view> names) {
  return std::find(names.begin(), names.end(), key) != names.end();
}

void add_model(const model_config& model, const explanation& all, digest& part, digest& numerics) {
  const auto prefix = join_path("models", model.name) + ".";
  part.add(model.name);
  part.add(std::to_string(model.version));
  for (const auto version : model.triton.versions)
    part.add(std::to_string(version));
  for (const auto& row : all.values) {
    if (!row.path.starts_with(prefix))
      continue;
    const auto key = std::string_view{row.path}.substr(prefix.size());
    if (is_one_of(key, local))
      continue;
    auto& to = is_one_of(key, numeric) ? numerics : part;
    to.add(row.path);
    to.add(row.value);
  }
  if (const auto& text = *model.engine.chat_template)
    part.add(*text);
  if (const auto facts = read_file(*model.engine.model / "config.json", most_config_bytes))
    part.add(*facts);
}

} // namespace

std::vector<agreed_part> agreement_of(const cluster_config& cluster) {
  const auto all = explain(cluster);
  std::vector<agreed_part> out;
  digest numerics;
  digest crowd;
  const bool apart = cluster.models.size() <= most_model_parts;
  for (const auto& model : cluster.models) {
    digest own;
    add_model(model, all, apart ? own : crowd, numerics);
    if (apart)
      out.push_back({join_path("models", model.name), own.value()});
  }
  if (!apart)
    out.push_back({"models", crowd.value()});
  out.push_back({"numerics", numerics.value()});
  digest routing;
  for (const auto& row : all.values)
    if (row.path.starts_with("routing."))
      routing.add(row.path + "=" + row.value);
  out.push_back({"routing", routing.value()});
  return out;
}

} // namespace troupe::config
