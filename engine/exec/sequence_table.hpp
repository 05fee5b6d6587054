#pragma once

#include "engine/request/step.hpp"
#include "troupe/base/error.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace troupe::engine {

/// What an executor knows of one sequence.
struct known_sequence {
  request_id id{};
  /// Prompt and sampled tokens, as far as they are known.
  std::vector<token_id> tokens;
  /// Tokens behind those, which staged steps will sample.
  std::uint32_t promised = 0;
  /// Positions that steps up to the newest staged one compute.
  std::uint32_t computed = 0;
  /// Whether a row of it has been staged.
  bool started = false;
  std::vector<block_id> blocks;
  sampling_params sampling;
  /// Set when a row failed: later rows of it fail too.
  std::optional<error> failure;
  /// The newest step that has a row of it.
  step_id last_step{};
};

/// The bounds against which steps are checked.
struct sequence_limits {
  std::uint32_t vocab_size = 0;
  std::uint32_t max_model_len = 0;
  std::uint32_t num_blocks = 0;
  std::uint32_t num_host_blocks = 0;
  std::uint32_t block_size = 0;
  std::uint32_t max_rows = 0;
  std::uint32_t max_tokens = 0;
};

/// The sequences of one executor and its places in host memory, and the check of each step against
/// them.
class sequence_table {
public:
  sequence_table() = default;
  explicit sequence_table(sequence_limits limits)
      : limits_{limits}, places_(limits.num_host_blocks, place::empty) {}

  /// A row of a step that has been checked.
  struct row {
    known_sequence* sequence = nullptr;
    std::uint32_t position = 0;
    std::uint32_t tokens = 0;
    bool samples = false;
    /// It is the first of its sequence.
    bool begins = false;
  };

  /// Forgets, learns and checks as `step` says; appends to `rows` in its order. After an error the
  /// table is in no useful state: clear() it.
  /// @errors invalid_argument: the note names the step, the sequence or the block, and what is
  ///         wrong
  [[nodiscard]] result<void> apply(const step_batch& step, std::vector<row>& rows);

  /// Says that no step up to `step` is in work: sequences that were removed may go.
  void release(step_id step) noexcept;

  void clear() noexcept;

private:
  /// What a place in host memory has: nothing, a block, or one that the step in hand brings there
  /// or takes away.
  enum class place : std::uint8_t { empty, held, saved, restored };

  [[nodiscard]] result<void> check_copies(const step_batch& step);
  [[nodiscard]] result<void> check_numbers(const block_copy& copy, std::string_view verb) const;
  [[nodiscard]] result<void> learn(const new_sequence& added);
  [[nodiscard]] result<row> check(const step_row& asked, step_id step);
  [[nodiscard]] result<void> add_blocks(known_sequence& sequence,
                                        const std::vector<block_id>& blocks);
  void forget(request_id id);

  sequence_limits limits_;
  std::vector<place> places_;
  std::unordered_map<request_id, std::unique_ptr<known_sequence>> known_;
  /// Forgotten ones that a step in work may still refer to.
  std::vector<std::unique_ptr<known_sequence>> retired_;
};

} // namespace troupe::engine
