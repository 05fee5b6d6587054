#include "engine/text/models/merge_table.hpp"
#include "engine/text/models/model.hpp"
#include "engine/text/utf8.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

namespace troupe::engine::text {

namespace {

/// A token of the word at work; neighbours are linked, so that a merge costs no copying.
struct symbol {
  token_id id = -1;
  std::int32_t previous = -1;
  std::int32_t next = -1;
  /// Merged into its left neighbour.
  bool dead = false;
};

/// A merge that may be possible at a symbol; checked again when its turn comes.
struct candidate {
  std::uint32_t rank;
  std::int32_t position;
  token_id merged;
};

/// Orders a heap so that the lowest rank, and of equal ranks the leftmost, is on top.
bool comes_later(const candidate& a, const candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

struct bpe_options {
  std::optional<token_id> unknown;
  /// The unknown token's text where the vocabulary lacks it: an error once it is needed.
  std::string unknown_missing;
  bool fuse_unknown = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
};

/// The memory of one call of encode.
struct workspace {
  std::vector<symbol> symbols;
  std::vector<candidate> heap;
  bool lacks_unknown = false;
};

/// Byte-pair encoding: a word is its characters, and the merge of the lowest rank goes first.
/// @source Sennrich et al., "Neural machine translation of rare words with subword units", 2016
class bpe final : public model {
public:
  bpe(vocabulary tokens, merge_table merges, bpe_options options)
      : tokens_{std::move(tokens)}, merges_{std::move(merges)}, options_{std::move(options)} {
    for (char32_t code = 0; code < characters_.size(); ++code) {
      std::string text;
      append_utf8(text, code);
      characters_[code] = tokens_.find(text).value_or(-1);
    }
    for (unsigned byte = 0; byte < bytes_.size(); ++byte)
      bytes_[byte] = tokens_.find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
  }

  result<void> encode(const split_text& text, std::vector<token_id>& ids) const override {
    workspace work;
    for (const byte_range& piece : text.pieces)
      encode_word(text.view(piece), work, ids);
    if (work.lacks_unknown)
      return fail(errc::invalid_argument,
                  fmt::format("the text has a character that is not in the vocabulary, and neither "
                              "is the unknown token \"{}\"",
                              options_.unknown_missing));
    return {};
  }

  const vocabulary& tokens() const noexcept override { return tokens_; }

private:
  void encode_word(std::string_view word, workspace& work, std::vector<token_id>& ids) const {
    if (options_.ignore_merges) {
      if (const auto whole = tokens_.find(word)) {
        ids.push_back(*whole);
        return;
      }
    }
    work.symbols.clear();
    work.heap.clear();
    split_characters(word, work);
    link(work);
    merge(work);
    for (const symbol& s : work.symbols)
      if (!s.dead)
        ids.push_back(s.id);
  }

  /// The id of one character, or -1.
  [[nodiscard]] token_id find_character(const utf8_char& character, std::string_view text) const {
    if (character.code < characters_.size())
      return characters_[character.code];
    return tokens_.find(text).value_or(-1);
  }

  /// The first symbols of a word. A pending unknown token waits for what follows, so that it can be
  /// fused with the next one; bytes do not wake it, as in Hugging Face tokenizers.
  void split_characters(std::string_view word, workspace& work) const {
    std::vector<symbol>& symbols = work.symbols;
    bool pending = false;
    const auto flush = [&] {
      if (std::exchange(pending, false))
        symbols.push_back({*options_.unknown});
    };
    while (!word.empty()) {
      const utf8_char character = decode_utf8(word);
      const std::string_view text = word.substr(0, character.bytes);
      word.remove_prefix(character.bytes);
      if (const token_id id = find_character(character, text); id >= 0) {
        flush();
        symbols.push_back({id});
        continue;
      }
      if (options_.byte_fallback && push_bytes(text, symbols))
        continue;
      if (!options_.unknown) {
        work.lacks_unknown |= !options_.unknown_missing.empty();
        continue;
      }
      if (!options_.fuse_unknown)
        flush();
      pending = true;
    }
    flush();
  }

  [[nodiscard]] bool push_bytes(std::string_view text, std::vector<symbol>& symbols) const {
    const auto id_of = [&](char c) { return bytes_[static_cast<std::uint8_t>(c)]; };
    if (!std::all_of(text.begin(), text.end(), [&](char c) { return id_of(c) >= 0; }))
      return false;
    for (const char c : text)
      symbols.push_back({id_of(c)});
    return true;
  }

  /// Links the symbols and makes a heap of the merges that are possible at the start.
  void link(workspace& work) const {
    const auto count = static_cast<std::int32_t>(work.symbols.size());
    for (std::int32_t i = 0; i < count; ++i) {
      symbol& here = work.symbols[static_cast<std::size_t>(i)];
      here.previous = i - 1;
      here.next = i + 1 < count ? i + 1 : -1;
      if (here.next < 0)
        continue;
      if (const auto* rule =
              merges_.find(here.id, work.symbols[static_cast<std::size_t>(i) + 1].id))
        work.heap.push_back({rule->rank, i, rule->merged});
    }
    std::make_heap(work.heap.begin(), work.heap.end(), comes_later);
  }

  void merge(workspace& work) const {
    const auto at = [&](std::int32_t i) -> symbol& {
      return work.symbols[static_cast<std::size_t>(i)];
    };
    while (!work.heap.empty()) {
      const candidate best = work.heap.front();
      std::pop_heap(work.heap.begin(), work.heap.end(), comes_later);
      work.heap.pop_back();
      symbol& left = at(best.position);
      if (left.dead || left.next < 0)
        continue;
      symbol& right = at(left.next);
      const merge_rule* rule = merges_.find(left.id, right.id);
      if (rule == nullptr || rule->merged != best.merged)
        continue;
      left.id = best.merged;
      left.next = right.next;
      right.dead = true;
      if (left.next >= 0)
        at(left.next).previous = best.position;
      if (left.previous >= 0)
        push(work, left.previous);
      if (left.next >= 0)
        push(work, best.position);
    }
  }

  /// Adds the merge of the symbol at `position` with its right neighbour, if there is one.
  void push(workspace& work, std::int32_t position) const {
    const symbol& left = work.symbols[static_cast<std::size_t>(position)];
    const symbol& right = work.symbols[static_cast<std::size_t>(left.next)];
    const merge_rule* rule = merges_.find(left.id, right.id);
    if (rule == nullptr)
      return;
    work.heap.push_back({rule->rank, position, rule->merged});
    std::push_heap(work.heap.begin(), work.heap.end(), comes_later);
  }

  vocabulary tokens_;
  merge_table merges_;
  bpe_options options_;
  /// Ids of the characters below U+0200, which hold GPT-2's byte alphabet; -1 where there is none.
  std::array<token_id, 0x200> characters_{};
  /// Ids of "<0x00>" to "<0xFF>".
  std::array<token_id, 256> bytes_{};
};

/// Refuses what would change the tokens and is not served.
result<void> check_unsupported(const json_view& at) {
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto member = at.find(key);
    if (!member)
      continue;
    const auto text = member->text();
    if (!text)
      return fail(text.error());
    if (!text->empty())
      return member->refuse(errc::unsupported, "is not supported; it must be null or empty");
  }
  const auto dropout = at.find("dropout");
  if (dropout && !(dropout->value().is_number() && dropout->value().get<double>() == 0.0))
    return dropout->refuse(errc::unsupported, "is not supported; it must be null or 0");
  return {};
}

result<bpe_options> read_options(const json_view& at, const vocabulary& tokens) {
  bpe_options options;
  const std::array<std::pair<std::string_view, bool*>, 3> flags{{
      {"fuse_unk", &options.fuse_unknown},
      {"byte_fallback", &options.byte_fallback},
      {"ignore_merges", &options.ignore_merges},
  }};
  for (const auto& [key, target] : flags) {
    const auto flag = at.flag(key, false);
    if (!flag)
      return fail(flag.error());
    *target = *flag;
  }
  if (const auto unknown = at.find("unk_token")) {
    const auto text = unknown->text();
    if (!text)
      return fail(text.error());
    options.unknown = tokens.find(*text);
    if (!options.unknown)
      options.unknown_missing = *text;
  }
  return options;
}

} // namespace

result<model_ptr> make_bpe(const json_view& at) {
  if (const auto supported = check_unsupported(at); !supported)
    return fail(supported.error());
  const auto vocab = at.child("vocab");
  if (!vocab)
    return fail(vocab.error());
  auto tokens = vocabulary::load(*vocab);
  if (!tokens)
    return fail(tokens.error());
  const auto list = at.child("merges");
  if (!list)
    return fail(list.error());
  auto merges = merge_table::load(*list, *tokens);
  if (!merges)
    return fail(merges.error());
  auto options = read_options(at, *tokens);
  if (!options)
    return fail(options.error());
  return std::make_unique<bpe>(std::move(*tokens), std::move(*merges), std::move(*options));
}

} // namespace troupe::engine::text
