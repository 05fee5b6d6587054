#include "engine/request/step_bytes.hpp"

#include <bit>
#include <cstring>
#include <type_traits>

namespace troupe::engine {

static_assert(std::endian::native == std::endian::little);

namespace {

constexpr std::uint32_t samples_bit = 0x80000000U;
constexpr std::size_t row_bytes = sizeof(std::uint64_t) + 3 * sizeof(std::uint32_t);
constexpr std::size_t copy_bytes = 2 * sizeof(std::uint32_t);
constexpr std::size_t token_bytes = sizeof(std::uint64_t) + sizeof(token_id);

/// Writes into room that is there.
class packer {
public:
  explicit packer(std::size_t bytes) : out_(bytes, '\0') {}

  template <class T>
  void put(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::memcpy(out_.data() + at_, &value, sizeof value);
    at_ += sizeof value;
  }
  [[nodiscard]] std::string take() && { return std::move(out_); }

private:
  std::string out_;
  std::size_t at_ = 0;
};

class unpacker {
public:
  explicit unpacker(std::string_view bytes) : rest_{bytes} {}

  [[nodiscard]] bool has(std::size_t bytes) const { return rest_.size() >= bytes; }
  [[nodiscard]] std::size_t left() const { return rest_.size(); }
  /// @pre has(sizeof(T))
  template <class T>
  [[nodiscard]] T get() {
    T value;
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_.remove_prefix(sizeof value);
    return value;
  }

private:
  std::string_view rest_;
};

void put_copies(packer& to, std::span<const block_copy> copies) {
  for (const auto& copy : copies) {
    to.put(static_cast<std::uint32_t>(value(copy.block)));
    to.put(static_cast<std::uint32_t>(value(copy.host)));
  }
}

result<std::vector<block_copy>> get_copies(unpacker& from, std::size_t count) {
  if (!from.has(count * copy_bytes))
    return fail(errc::corrupt_data, "the copies of a step are cut off");
  std::vector<block_copy> copies(count);
  for (auto& copy : copies) {
    copy.block = block_id{from.get<std::uint32_t>()};
    copy.host = host_block{from.get<std::uint32_t>()};
  }
  return copies;
}

result<std::vector<step_row>> get_rows(unpacker& from) {
  std::vector<step_row> rows;
  rows.reserve(from.left() / row_bytes);
  while (from.has(row_bytes)) {
    auto& row = rows.emplace_back();
    row.id = request_id{from.get<std::uint64_t>()};
    row.position = from.get<std::uint32_t>();
    row.tokens = from.get<std::uint32_t>();
    const auto count = from.get<std::uint32_t>();
    row.samples = (count & samples_bit) != 0;
    const std::size_t blocks = count & ~samples_bit;
    if (!from.has(blocks * sizeof(std::uint32_t)))
      return fail(errc::corrupt_data, "the blocks of a row are cut off");
    row.new_blocks.reserve(blocks);
    for (std::size_t i = 0; i < blocks; ++i)
      row.new_blocks.emplace_back(block_id{from.get<std::uint32_t>()});
  }
  if (from.left() > 0)
    return fail(errc::corrupt_data, "a row is cut off");
  return rows;
}

} // namespace

std::string pack_work(const step_batch& step) {
  std::size_t bytes =
      2 * sizeof(std::uint32_t) + (step.saved.size() + step.restored.size()) * copy_bytes;
  for (const auto& row : step.rows)
    bytes += row_bytes + row.new_blocks.size() * sizeof(std::uint32_t);
  packer to{bytes};
  to.put(static_cast<std::uint32_t>(step.saved.size()));
  to.put(static_cast<std::uint32_t>(step.restored.size()));
  put_copies(to, step.saved);
  put_copies(to, step.restored);
  for (const auto& row : step.rows) {
    to.put(static_cast<std::uint64_t>(value(row.id)));
    to.put(row.position);
    to.put(row.tokens);
    to.put(static_cast<std::uint32_t>(row.new_blocks.size()) | (row.samples ? samples_bit : 0));
    for (const auto block : row.new_blocks)
      to.put(static_cast<std::uint32_t>(value(block)));
  }
  return std::move(to).take();
}

result<void> unpack_work(std::string_view bytes, step_batch& step) {
  unpacker from{bytes};
  if (!from.has(2 * sizeof(std::uint32_t)))
    return fail(errc::corrupt_data, "a step is cut off");
  const std::size_t saved = from.get<std::uint32_t>();
  const std::size_t restored = from.get<std::uint32_t>();
  return get_copies(from, saved)
      .and_then([&](std::vector<block_copy> copies) {
        step.saved = std::move(copies);
        return get_copies(from, restored);
      })
      .and_then([&](std::vector<block_copy> copies) {
        step.restored = std::move(copies);
        return get_rows(from);
      })
      .map([&](std::vector<step_row> rows) { step.rows = std::move(rows); });
}

std::string pack_tokens(std::span<const sampled_token> tokens) {
  packer to{tokens.size() * token_bytes};
  for (const auto& one : tokens) {
    to.put(static_cast<std::uint64_t>(value(one.id)));
    to.put(one.token);
  }
  return std::move(to).take();
}

result<std::vector<sampled_token>> unpack_tokens(std::string_view bytes) {
  if (bytes.size() % token_bytes != 0)
    return fail(errc::corrupt_data, "a token is cut off");
  unpacker from{bytes};
  std::vector<sampled_token> tokens(bytes.size() / token_bytes);
  for (auto& one : tokens) {
    one.id = request_id{from.get<std::uint64_t>()};
    one.token = from.get<token_id>();
  }
  return tokens;
}

} // namespace troupe::engine
