#pragma once

#include "troupe/base/error.hpp"
#include "troupe/base/ids.hpp"

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::engine::text {

struct tokenizer_parts;

struct encode_options {
  /// Adds what the file's post-processor adds, e.g. the token that begins a sequence. Off for text
  /// that comes out of a chat template, which writes such tokens itself.
  bool add_special_tokens = true;
};

/// A tokenizer.json of Hugging Face `tokenizers`: text to token ids and back, with the very ids and
/// bytes of that library. Immutable once loaded: any number of threads may use one at once.
class tokenizer {
public:
  /// Reads and checks a tokenizer.json.
  /// @errors not_found, io_failure: the file; corrupt_data: it is no JSON; limit_exceeded: it or a
  ///         pattern in it is too large; unsupported: it names a part that is not there;
  ///         invalid_argument, conflict: a value in it is wrong. Notes name the file and the path.
  /// @cost   linear in the file: some 2 ms for 4k tokens, some 300 ms for 150k
  [[nodiscard]] static result<tokenizer> load(const std::filesystem::path& tokenizer_json);

  /// The same for a document in memory; `name` stands for the file in notes.
  [[nodiscard]] static result<tokenizer> parse(std::string_view json, std::string_view name);

  tokenizer(tokenizer&&) noexcept;
  tokenizer& operator=(tokenizer&&) noexcept;
  ~tokenizer();

  /// @errors invalid_argument: `text` is not valid UTF-8 (the note has the offset), or has a
  ///         character that neither the vocabulary nor its unknown token covers;
  ///         limit_exceeded: more than 64 MiB, or a pattern costs too much on it
  /// @cost   O(n log n) in the bytes of the text
  [[nodiscard]] result<std::vector<token_id>> encode(std::string_view text,
                                                     encode_options options = {}) const;

  /// Ids that no token has are left out, as tokenizers does; with `skip_special_tokens` special
  /// ones too. Bytes that are no UTF-8 become U+FFFD.
  [[nodiscard]] std::string decode(std::span<const token_id> ids, bool skip_special_tokens) const;

  /// One more than the largest id: what an array indexed by id needs.
  [[nodiscard]] std::size_t vocab_size() const noexcept;
  [[nodiscard]] std::optional<token_id> token_to_id(std::string_view token) const;
  /// The token as it stands in the file, e.g. "Ġthe".
  [[nodiscard]] std::optional<std::string> id_to_token(token_id id) const;
  [[nodiscard]] bool is_special(token_id id) const noexcept;
  /// The bytes that the token adds to a text, e.g. " the": not always whole characters. Empty
  /// where no token has that id.
  [[nodiscard]] std::string token_bytes(token_id id) const;

  /// The parts, for the detokenizer.
  [[nodiscard]] const tokenizer_parts& parts() const noexcept { return *parts_; }

private:
  explicit tokenizer(std::unique_ptr<tokenizer_parts> parts);

  std::unique_ptr<tokenizer_parts> parts_;
};

} // namespace troupe::engine::text
