#pragma once

#include "troupe/base/error.hpp"
#include "troupe/engine/request.hpp"

#include <chrono>
#include <cstdint>
#include <vector>

namespace troupe::engine {

/// A sequence that the executor does not know yet, or knows no more: sent whole.
struct new_sequence {
  request_id id{};
  /// Prompt and, for a resumed request, the tokens generated so far.
  std::vector<token_id> tokens;
  /// How many of `tokens` are the prompt; positions from there on are sampled ones.
  std::uint32_t prompt_tokens = 0;
  /// The blocks that hold or will hold tokens [0, blocks.size() * block_size).
  std::vector<block_id> blocks;
  sampling_params sampling;
};

/// What one sequence does in one step. A known sequence is sent as this difference.
struct step_row {
  request_id id{};
  /// The first position that is computed here; all before it are in the KV cache or computed by an
  /// earlier row of the same step, or by an earlier step.
  std::uint32_t position = 0;
  /// How many positions are computed: tokens [position, position + tokens). A position whose token
  /// is not known to the scheduler yet is the one that the executor sampled for this sequence last.
  std::uint32_t tokens = 0;
  /// Whether the last of these positions yields the next token.
  bool samples = false;
  /// Blocks appended to the sequence's block table, before the row is computed.
  std::vector<block_id> new_blocks;
};

/// The contents of one block of KV memory on their way to or from a place in host memory.
struct block_copy {
  block_id block{};
  host_block host{};
};

/// One step of one replica: planned while the step before it may still run.
struct step_batch {
  step_id id{};
  /// Sequences that the executor forgets before this step: finished, cancelled or preempted.
  std::vector<request_id> removed{};
  /// Sequences that it learns before this step; one of `removed` may come back here.
  std::vector<new_sequence> added{};
  /// Blocks that are copied to host memory before anything of this step is written, as the steps
  /// before it left them: of preempted sequences, so that nothing has to be computed anew.
  std::vector<block_copy> saved{};
  /// Blocks that are filled from host memory behind that, before any row is computed. The place is
  /// free with the step behind this one.
  std::vector<block_copy> restored{};
  std::vector<step_row> rows{};
};

/// One sampled token.
struct sampled_token {
  request_id id{};
  token_id token = 0;
};

/// How likely the token of a row was, where its request asks.
struct row_logprobs {
  request_id id{};
  token_logprobs of;
};

/// A sequence whose row failed alone; the other rows of the step are good.
struct failed_row {
  request_id id{};
  errc code = errc::internal;
  std::string note;
};

/// Where the time of a step went, on the device's side.
struct step_timings {
  std::chrono::microseconds prepare{0};
  std::chrono::microseconds forward{0};
  std::chrono::microseconds sample{0};
  /// How long the device had nothing to do between the step before and this one.
  std::chrono::microseconds idle{0};
};

/// What a step brought. `tokens` and `logprobs` are in the order of the rows that sample.
struct step_result {
  step_id id{};
  std::vector<sampled_token> tokens{};
  std::vector<row_logprobs> logprobs{};
  std::vector<failed_row> failed{};
  step_timings timings{};
};

} // namespace troupe::engine
