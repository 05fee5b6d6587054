#include "engine/text/tokenizer.hpp"

#include "engine/text/byte_alphabet.hpp"
#include "engine/text/detokenizer.hpp"
#include "engine/text/pattern.hpp"
#include "engine/text/tokenizer_parts.hpp"
#include "engine/text/utf8.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace troupe::engine::text {

namespace {

constexpr std::size_t max_file_bytes = std::size_t{256} << 20U;

/// Loads the part under `key` where the file has one.
template <class Part>
result<void> load_part(const json_view& root, std::string_view key, std::unique_ptr<Part>& target,
                       result<std::unique_ptr<Part>> (*make)(const json_view&)) {
  const auto at = root.find(key);
  if (!at)
    return {};
  auto part = make(*at);
  if (!part)
    return fail(part.error());
  target = std::move(*part);
  return {};
}

/// Whether the decoder at `at` is, or has, one that reads GPT-2's byte alphabet.
bool reads_byte_alphabet(const json_view& at) {
  if (at.depth() > max_part_depth)
    return false;
  const auto type = at.text("type");
  if (type && *type == "ByteLevel")
    return true;
  const auto list = at.find("decoders");
  const auto elements = list ? list->elements() : result<std::vector<json_view>>{};
  return elements && std::any_of(elements->begin(), elements->end(), reads_byte_alphabet);
}

result<void> load_decoders(const json_view& root, tokenizer_parts& parts) {
  const auto at = root.find("decoder");
  auto stages = make_decoders(at ? &*at : nullptr);
  if (!stages)
    return fail(stages.error());
  parts.decode = std::move(*stages);
  parts.byte_level = at && reads_byte_alphabet(*at);
  return {};
}

result<void> load_added(const json_view& root, tokenizer_parts& parts) {
  const auto at = root.find("added_tokens");
  if (!at)
    return {};
  auto added = added_tokens::load(*at, parts.encode->tokens(), parts.normalize.get());
  if (!added)
    return fail(added.error());
  parts.added = std::move(*added);
  return {};
}

result<std::unique_ptr<tokenizer_parts>> load_parts(const json_view& root) {
  auto parts = std::make_unique<tokenizer_parts>();
  const auto model_at = root.child("model");
  if (!model_at)
    return fail(model_at.error());
  auto encode = make_model(*model_at);
  if (!encode)
    return fail(encode.error());
  parts->encode = std::move(*encode);
  auto done = load_part(root, "normalizer", parts->normalize, make_normalizer);
  if (done)
    done = load_part(root, "pre_tokenizer", parts->split, make_pre_tokenizer);
  if (done)
    done = load_part(root, "post_processor", parts->finish, make_post_processor);
  if (done)
    done = load_decoders(root, *parts);
  if (done)
    done = load_added(root, *parts);
  if (!done)
    return fail(done.error());
  return parts;
}

/// Encodes a stretch without added tokens that are found in text as given.
result<void> encode_given(const tokenizer_parts& parts, std::string_view given,
                          std::vector<token_id>& ids) {
  std::string text{given};
  if (parts.normalize)
    if (auto done = parts.normalize->apply(text); !done)
      return done;
  std::vector<text_segment> segments;
  parts.added.split_normalized(text, segments);
  for (const text_segment& segment : segments) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
      continue;
    }
    split_text pieces{std::string{segment.text}, {{0, segment.text.size()}}};
    if (parts.split)
      if (auto done = parts.split->split(pieces); !done)
        return done;
    if (auto done = parts.encode->encode(pieces, ids); !done)
      return done;
  }
  return {};
}

} // namespace

tokenizer::tokenizer(std::unique_ptr<tokenizer_parts> parts) : parts_{std::move(parts)} {}
tokenizer::tokenizer(tokenizer&&) noexcept = default;
tokenizer& tokenizer::operator=(tokenizer&&) noexcept = default;
tokenizer::~tokenizer() = default;

result<tokenizer> tokenizer::load(const std::filesystem::path& tokenizer_json) {
  const auto text = read_text_file(tokenizer_json, max_file_bytes);
  if (!text)
    return fail(text.error());
  return parse(*text, tokenizer_json.string());
}

result<tokenizer> tokenizer::parse(std::string_view json, std::string_view name) {
  const auto document = parse_json(json, name);
  if (!document)
    return fail(document.error());
  auto parts = load_parts(json_view{*document, name});
  if (!parts)
    return fail(parts.error());
  return tokenizer{std::move(*parts)};
}

result<std::vector<token_id>> tokenizer::encode(std::string_view text,
                                                encode_options options) const {
  if (text.size() > max_text_bytes)
    return fail(errc::limit_exceeded, fmt::format("the text has {} bytes; at most {} are encoded",
                                                  text.size(), max_text_bytes));
  if (const auto offset = find_invalid_utf8(text); offset != std::string_view::npos)
    return fail(errc::invalid_argument,
                fmt::format("the text is not valid UTF-8 at byte {}", offset));
  std::vector<text_segment> segments;
  parts_->added.split_given(text, segments);
  std::vector<token_id> ids;
  for (const text_segment& segment : segments) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
      continue;
    }
    if (auto done = encode_given(*parts_, segment.text, ids); !done)
      return fail(done.error());
  }
  if (parts_->finish)
    parts_->finish->apply(ids, options.add_special_tokens);
  return ids;
}

std::string tokenizer::decode(std::span<const token_id> ids, bool skip_special_tokens) const {
  detokenizer stream{*this, {.skip_special_tokens = skip_special_tokens}};
  std::string text;
  for (const token_id id : ids)
    text += stream.push(id);
  text += stream.flush();
  return text;
}

std::size_t tokenizer::vocab_size() const noexcept {
  return std::max(parts_->encode->tokens().id_end(), parts_->added.id_end());
}

std::optional<token_id> tokenizer::token_to_id(std::string_view token) const {
  if (const added_token* added = parts_->added.find(token))
    return added->id;
  return parts_->encode->tokens().find(token);
}

std::optional<std::string> tokenizer::id_to_token(token_id id) const {
  const auto text = parts_->text_of(id);
  if (!text)
    return std::nullopt;
  return std::string{*text};
}

bool tokenizer::is_special(token_id id) const noexcept { return parts_->added.is_special(id); }

std::string tokenizer::token_bytes(token_id id) const {
  const auto text = parts_->text_of(id);
  if (!text)
    return {};
  if (parts_->byte_level)
    if (auto bytes = from_byte_alphabet(*text))
      return std::move(*bytes);
  return std::string{*text};
}

} // namespace troupe::engine::text
