#include "engine/text/models/vocabulary.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <bit>
#include <functional>

namespace troupe::engine::text {

result<vocabulary> vocabulary::load(const json_view& at) {
  if (!at.value().is_object())
    return at.expected("an object of tokens and ids");
  const auto& entries = at.value().get_ref<const nlohmann::json::object_t&>();
  vocabulary made;
  std::size_t bytes = 0;
  for (const auto& [token, id] : entries)
    bytes += token.size();
  made.arena_.reserve(bytes);
  made.slots_.assign(std::bit_ceil(2 * entries.size() + 1), -1);
  made.texts_.resize(entries.size());
  const std::uint64_t max_id = max_id_of(entries.size());
  for (const auto& [token, value] : entries) {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > max_id)
      return at.refuse(
          errc::invalid_argument,
          fmt::format("the id of \"{}\" must be an integer from 0 to {}", token, max_id));
    const auto id = value.get<std::size_t>();
    if (id >= made.texts_.size())
      made.texts_.resize(id + 1);
    if (made.texts_[id].used)
      return at.refuse(errc::invalid_argument,
                       fmt::format("the id {} belongs to both \"{}\" and \"{}\"", id,
                                   *made.text(static_cast<token_id>(id)), token));
    made.insert(static_cast<token_id>(id), token);
  }
  while (!made.texts_.empty() && !made.texts_.back().used)
    made.texts_.pop_back();
  return made;
}

void vocabulary::insert(token_id id, std::string_view token) {
  texts_[static_cast<std::size_t>(id)] = {arena_.size(), static_cast<std::uint32_t>(token.size()),
                                          true};
  arena_ += token;
  std::size_t slot = std::hash<std::string_view>{}(token) & (slots_.size() - 1);
  while (slots_[slot] >= 0)
    slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot] = id;
}

std::optional<token_id> vocabulary::find(std::string_view token) const noexcept {
  if (slots_.empty())
    return std::nullopt;
  std::size_t slot = std::hash<std::string_view>{}(token) & (slots_.size() - 1);
  for (; slots_[slot] >= 0; slot = (slot + 1) & (slots_.size() - 1))
    if (*text(slots_[slot]) == token)
      return slots_[slot];
  return std::nullopt;
}

std::optional<std::string_view> vocabulary::text(token_id id) const noexcept {
  if (id < 0 || static_cast<std::size_t>(id) >= texts_.size())
    return std::nullopt;
  const place& found = texts_[static_cast<std::size_t>(id)];
  if (!found.used)
    return std::nullopt;
  return std::string_view{arena_}.substr(found.begin, found.size);
}

} // namespace troupe::engine::text
