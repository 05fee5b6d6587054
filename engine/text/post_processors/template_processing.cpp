#include "engine/text/post_processors/post_processor.hpp"

#include <fmt/format.h>

#include <limits>
#include <utility>

namespace troupe::engine::text {

namespace {

/// One element of a template: the text itself, or special tokens.
struct template_piece {
  bool is_text = false;
  std::vector<token_id> ids;
};

constexpr std::size_t max_pieces = 64;

/// Puts special tokens around the text, e.g. the one that begins a sequence.
class template_processing final : public post_processor {
public:
  explicit template_processing(std::vector<template_piece> pieces) : pieces_{std::move(pieces)} {}

  void apply(std::vector<token_id>& ids, bool add_special_tokens) const override {
    std::vector<token_id> filled;
    for (const template_piece& piece : pieces_) {
      if (!piece.is_text && !add_special_tokens)
        continue;
      const auto& source = piece.is_text ? ids : piece.ids;
      filled.insert(filled.end(), source.begin(), source.end());
    }
    ids = std::move(filled);
  }

private:
  std::vector<template_piece> pieces_;
};

result<std::vector<token_id>> special_ids(const json_view& at, const json_view& reference) {
  const auto name = reference.text("id");
  if (!name)
    return fail(name.error());
  const auto all = at.child("special_tokens");
  if (!all)
    return fail(all.error());
  const auto entry = all->child(*name);
  if (!entry)
    return fail(entry.error());
  const auto list = entry->child("ids");
  if (!list)
    return fail(list.error());
  const auto elements = list->elements();
  if (!elements)
    return fail(elements.error());
  std::vector<token_id> ids;
  for (const json_view& element : *elements) {
    const auto id = element.natural(std::numeric_limits<token_id>::max());
    if (!id)
      return fail(id.error());
    ids.push_back(static_cast<token_id>(*id));
  }
  return ids;
}

result<template_piece> load_piece(const json_view& at, const json_view& piece) {
  if (const auto sequence = piece.find("Sequence")) {
    const auto id = sequence->text("id");
    if (!id)
      return fail(id.error());
    if (*id != "A")
      return sequence->refuse(errc::invalid_argument,
                              "a template for single texts has only the sequence \"A\"");
    return template_piece{true, {}};
  }
  const auto special = piece.find("SpecialToken");
  if (!special)
    return piece.refuse(errc::invalid_argument,
                        "must be {\"Sequence\": ...} or {\"SpecialToken\": ...}");
  auto ids = special_ids(at, *special);
  if (!ids)
    return fail(ids.error());
  return template_piece{false, std::move(*ids)};
}

} // namespace

result<post_processor_ptr> make_template_processing(const json_view& at) {
  const auto single = at.child("single");
  if (!single)
    return fail(single.error());
  const auto elements = single->elements();
  if (!elements)
    return fail(elements.error());
  if (elements->size() > max_pieces)
    return single->refuse(errc::limit_exceeded,
                          fmt::format("has more than {} elements", max_pieces));
  std::vector<template_piece> pieces;
  for (const json_view& element : *elements) {
    auto piece = load_piece(at, element);
    if (!piece)
      return fail(piece.error());
    pieces.push_back(std::move(*piece));
  }
  return std::make_unique<template_processing>(std::move(pieces));
}

} // namespace troupe::engine::text
