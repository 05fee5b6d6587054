#include "engine/text/added_tokens.hpp"

#include "engine/text/regex.hpp"
#include "engine/text/utf8.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace troupe::engine::text {

namespace {

constexpr std::size_t max_content_bytes = 512;

result<added_token> read_token(const json_view& at, std::uint64_t max_id) {
  added_token token;
  const auto id_at = at.child("id");
  if (!id_at)
    return fail(id_at.error());
  const auto id = id_at->natural(max_id);
  if (!id)
    return fail(id.error());
  token.id = static_cast<token_id>(*id);
  auto content = at.text("content");
  if (!content)
    return fail(content.error());
  token.content = std::move(*content);
  if (token.content.size() > max_content_bytes)
    return at.refuse(errc::invalid_argument,
                     fmt::format("content is longer than {} bytes", max_content_bytes));
  const std::array<std::pair<std::string_view, bool*>, 5> flags{{
      {"special", &token.special},
      {"normalized", &token.normalized},
      {"lstrip", &token.lstrip},
      {"rstrip", &token.rstrip},
      {"single_word", &token.single_word},
  }};
  for (const auto& [key, target] : flags) {
    const auto flag = at.flag(key, false);
    if (!flag)
      return fail(flag.error());
    *target = *flag;
  }
  return token;
}

/// The character that ends at `at`.
utf8_char char_before(std::string_view text, std::size_t at) {
  std::size_t begin = at - 1;
  while (begin > 0 && !is_boundary(text, begin))
    --begin;
  return decode_utf8(text.substr(begin, at - begin));
}

bool inside_word(std::string_view text, std::size_t begin, std::size_t end) {
  const bool left = begin > 0 && is_word(char_before(text, begin).code);
  const bool right = end < text.size() && is_word(decode_utf8(text.substr(end)).code);
  return left || right;
}

/// Where the white space before `at` starts, but not before `low`.
std::size_t space_begin(std::string_view text, std::size_t low, std::size_t at) {
  while (at > low) {
    const utf8_char last = char_before(text, at);
    if (!is_space(last.code))
      break;
    at -= last.bytes;
  }
  return std::max(at, low);
}

/// Where the white space behind `at` ends. `known` is the end of the run found last, so that tokens
/// of white space inside one run do not walk over it again each.
std::size_t space_end(std::string_view text, std::size_t at, byte_range& known) {
  if (at >= known.begin && at < known.end)
    return known.end;
  std::size_t end = at;
  while (end < text.size()) {
    const utf8_char next = decode_utf8(text.substr(end));
    if (!is_space(next.code))
      break;
    end += next.bytes;
  }
  known = {at, end};
  return end;
}

} // namespace

result<added_tokens> added_tokens::load(const json_view& at, const vocabulary& tokens,
                                        const normalizer* normalize) {
  const auto elements = at.elements();
  if (!elements)
    return fail(elements.error());
  const std::uint64_t max_id = max_id_of(tokens.id_end() + elements->size());
  added_tokens made;
  for (const json_view& element : *elements) {
    auto token = read_token(element, max_id);
    if (!token)
      return fail(token.error());
    if (token->content.empty())
      continue;
    if (auto done = made.add(element, std::move(*token), tokens); !done)
      return fail(done.error());
  }
  if (auto done = made.build_trees(at, normalize); !done)
    return fail(done.error());
  return made;
}

result<void> added_tokens::add(const json_view& at, added_token token, const vocabulary& tokens) {
  const auto known = tokens.find(token.content);
  const auto owner = tokens.text(token.id);
  if ((known && *known != token.id) || (owner && *owner != token.content))
    return at.refuse(errc::conflict,
                     fmt::format("\"{}\" has the id {} here, but in the vocabulary {}",
                                 token.content, token.id,
                                 known ? fmt::format("it has {}", *known)
                                       : fmt::format("that is \"{}\"", *owner)));
  const auto same_id = by_id_.find(token.id);
  const auto same_content = by_content_.find(token.content);
  if ((same_id == by_id_.end()) != (same_content == by_content_.end()) ||
      (same_id != by_id_.end() && same_id->second != same_content->second))
    return at.refuse(
        errc::conflict,
        fmt::format("\"{}\" or its id {} belongs to another added token", token.content, token.id));
  if (same_id != by_id_.end()) {
    list_[same_id->second] = std::move(token);
    return {};
  }
  by_id_.emplace(token.id, list_.size());
  by_content_.emplace(token.content, list_.size());
  id_end_ = std::max(id_end_, static_cast<std::size_t>(token.id) + 1);
  list_.push_back(std::move(token));
  return {};
}

result<void> added_tokens::build_trees(const json_view& at, const normalizer* normalize) {
  for (std::size_t i = 0; i < list_.size(); ++i) {
    std::string content = list_[i].content;
    if (list_[i].normalized && normalize != nullptr)
      if (auto done = normalize->apply(content); !done)
        return done;
    if (content.empty() || content.size() > max_content_bytes)
      return at.refuse(errc::invalid_argument,
                       fmt::format("\"{}\" must have 1 to {} bytes once it is normalized",
                                   list_[i].content, max_content_bytes));
    search_tree& tree = list_[i].normalized ? normalized_ : given_;
    if (!tree.insert(content, static_cast<std::int32_t>(i)))
      return at.refuse(errc::conflict, fmt::format("\"{}\" is the same as another added token once "
                                                   "it is normalized",
                                                   list_[i].content));
  }
  return {};
}

bool added_tokens::search_tree::insert(std::string_view text, std::int32_t token) {
  std::uint32_t node = 0;
  for (const char c : text) {
    const std::uint64_t key = node * std::uint64_t{256} + static_cast<std::uint8_t>(c);
    const auto [child, is_new] = children.emplace(key, static_cast<std::uint32_t>(ends.size()));
    if (is_new)
      ends.push_back(-1);
    node = child->second;
  }
  starts[static_cast<std::uint8_t>(text.front())] = true;
  return std::exchange(ends[node], token) < 0;
}

added_tokens::found_token added_tokens::longest_at(const search_tree& tree, std::string_view text,
                                                   std::size_t at) {
  found_token found;
  std::uint32_t node = 0;
  for (std::size_t end = at; end < text.size();) {
    const std::uint64_t key = node * std::uint64_t{256} + static_cast<std::uint8_t>(text[end]);
    const auto child = tree.children.find(key);
    if (child == tree.children.end())
      break;
    node = child->second;
    ++end;
    if (tree.ends[node] >= 0)
      found = {end, tree.ends[node]};
  }
  return found;
}

void added_tokens::split(const search_tree& tree, std::string_view text,
                         std::vector<text_segment>& segments) const {
  std::size_t done = 0;
  byte_range known_space;
  for (std::size_t at = 0; at < text.size();) {
    const bool possible = tree.starts[static_cast<std::uint8_t>(text[at])];
    const found_token found = possible ? longest_at(tree, text, at) : found_token{};
    if (found.token < 0) {
      ++at;
      continue;
    }
    std::size_t begin = std::exchange(at, found.end);
    std::size_t end = found.end;
    const added_token& token = list_[static_cast<std::size_t>(found.token)];
    if (token.single_word && inside_word(text, begin, end))
      continue;
    if (token.lstrip)
      begin = std::max(space_begin(text, std::min(done, begin), begin), done);
    if (token.rstrip)
      end = space_end(text, end, known_space);
    if (done < begin)
      segments.push_back({text.substr(done, begin - done), -1});
    segments.push_back({{}, token.id});
    done = end;
  }
  if (done < text.size())
    segments.push_back({text.substr(done), -1});
}

const added_token* added_tokens::find(token_id id) const noexcept {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &list_[found->second];
}

const added_token* added_tokens::find(std::string_view content) const noexcept {
  const auto found = by_content_.find(std::string{content});
  return found == by_content_.end() ? nullptr : &list_[found->second];
}

bool added_tokens::is_special(token_id id) const noexcept {
  const added_token* token = find(id);
  return token != nullptr && token->special;
}

} // namespace troupe::engine::text
