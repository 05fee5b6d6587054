#include "engine/text/tokenizer_config.hpp"

#include "engine/text/json_view.hpp"
#include "engine/text/utf8.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <array>
#include <utility>

namespace troupe::engine::text {

namespace {

constexpr std::size_t max_file_bytes = std::size_t{16} << 20U;

/// A token stands as its text, or as an object with its text in "content".
result<std::optional<std::string>> read_token(const json_view& root, std::string_view key) {
  const auto at = root.find(key);
  if (!at)
    return std::nullopt;
  auto text = at->value().is_object() ? at->text("content") : at->text();
  if (!text)
    return fail(text.error());
  return std::move(*text);
}

result<void> read_tokens(const json_view& root, tokenizer_config& config) {
  const std::array<std::pair<std::string_view, std::optional<std::string>*>, 4> tokens{{
      {"bos_token", &config.bos_token},
      {"eos_token", &config.eos_token},
      {"pad_token", &config.pad_token},
      {"unk_token", &config.unk_token},
  }};
  for (const auto& [key, target] : tokens) {
    auto token = read_token(root, key);
    if (!token)
      return fail(token.error());
    *target = std::move(*token);
  }
  const std::array<std::pair<std::string_view, std::optional<bool>*>, 2> flags{{
      {"add_bos_token", &config.add_bos_token},
      {"add_eos_token", &config.add_eos_token},
  }};
  for (const auto& [key, target] : flags) {
    if (!root.find(key))
      continue;
    const auto flag = root.flag(key, false);
    if (!flag)
      return fail(flag.error());
    *target = *flag;
  }
  return {};
}

result<void> read_named_templates(const json_view& list, tokenizer_config& config) {
  const auto elements = list.elements();
  if (!elements)
    return fail(elements.error());
  for (const json_view& element : *elements) {
    const auto name = element.text("name");
    if (!name)
      return fail(name.error());
    auto text = element.text("template");
    if (!text)
      return fail(text.error());
    if (!config.named_templates.emplace(*name, std::move(*text)).second)
      return element.refuse(errc::invalid_argument,
                            fmt::format("there are two templates named \"{}\"", *name));
  }
  if (const auto found = config.named_templates.find("default");
      found != config.named_templates.end())
    config.chat_template = found->second;
  return {};
}

result<void> read_template(const json_view& root, tokenizer_config& config) {
  const auto at = root.find("chat_template");
  if (!at)
    return {};
  if (at->value().is_array())
    return read_named_templates(*at, config);
  auto text = at->text();
  if (!text)
    return fail(text.error());
  config.chat_template = std::move(*text);
  return {};
}

/// Applies chat_template.jinja, where there is one.
result<void> read_template_file(const std::filesystem::path& path, tokenizer_config& config) {
  auto text = read_text_file(path, max_file_bytes);
  if (!text && text.error().code == errc::not_found)
    return {};
  if (!text)
    return fail(text.error());
  if (const auto offset = find_invalid_utf8(*text); offset != std::string::npos)
    return fail(errc::corrupt_data,
                fmt::format("{}: is not valid UTF-8 at byte {}", path.string(), offset));
  config.chat_template = std::move(*text);
  config.chat_template_origin = path.string();
  return {};
}

} // namespace

result<tokenizer_config> load_tokenizer_config(const std::filesystem::path& model_directory) {
  tokenizer_config config;
  const auto path = model_directory / "tokenizer_config.json";
  const auto text = read_text_file(path, max_file_bytes);
  if (!text && text.error().code != errc::not_found)
    return fail(text.error());
  if (text) {
    const std::string file = path.string();
    const auto document = parse_json(*text, file);
    if (!document)
      return fail(document.error());
    const json_view root{*document, file};
    if (!document->is_object())
      return root.expected("an object");
    if (const auto read = read_tokens(root, config); !read)
      return fail(read.error());
    if (const auto read = read_template(root, config); !read)
      return fail(read.error());
    if (config.chat_template)
      config.chat_template_origin = file + ": $.chat_template";
  }
  if (const auto read = read_template_file(model_directory / "chat_template.jinja", config); !read)
    return fail(read.error());
  return config;
}

} // namespace troupe::engine::text
