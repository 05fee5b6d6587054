#pragma once

#include "engine/text/json_view.hpp"
#include "troupe/base/ids.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::engine::text {

/// The tokens of a model, by id and by text. The texts lie in one piece of memory, the index is
/// open addressing: a vocabulary of 150k tokens takes a few megabytes and some milliseconds.
class vocabulary {
public:
  /// Reads {"token": id, ...}. Ids may leave holes, but not many.
  /// @errors invalid_argument: not an object, an id that is no integer, is negative, stands twice
  /// or
  ///         is far larger than the number of tokens
  [[nodiscard]] static result<vocabulary> load(const json_view& at);

  [[nodiscard]] std::optional<token_id> find(std::string_view token) const noexcept;
  /// The text of `id`, or nothing where no token has that id.
  [[nodiscard]] std::optional<std::string_view> text(token_id id) const noexcept;
  /// One more than the largest id.
  [[nodiscard]] std::size_t id_end() const noexcept { return texts_.size(); }

private:
  void insert(token_id id, std::string_view token);

  struct place {
    std::size_t begin = 0;
    std::uint32_t size = 0;
    bool used = false;
  };

  std::string arena_;
  std::vector<place> texts_;
  /// Ids, or -1; a power of two of slots, at most half of them taken.
  std::vector<token_id> slots_;
};

/// The largest id allowed in a file of `count` tokens.
[[nodiscard]] constexpr std::uint64_t max_id_of(std::size_t count) noexcept {
  return 4 * static_cast<std::uint64_t>(count) + 65536;
}

} // namespace troupe::engine::text
