#pragma once

#include "engine/exec/executor.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

/// Test support: what every executor must do, as checks of Catch2.
namespace troupe::engine::test {

/// What the suite asks of the executors that it makes: block_size 16, 96 blocks, 8 sequences, 256
/// tokens a step, max_model_len 256, a vocabulary of at least 64, 16 host places, loaded.
struct conformance_case {
  std::string name;
  /// Makes a loaded executor with that many compute threads.
  std::function<std::unique_ptr<executor>(unsigned threads)> make;
  /// The logits of the row that sampled `index`-th in the last step; empty when there are none.
  std::function<std::span<const float>(executor& run, std::size_t index)> logits;
};

/// Fills in the options that the suite needs.
[[nodiscard]] executor_options conformance_options(unsigned threads);

/// Runs the suite: alone = batched = chunked (at every split) = resumed = after reset = on shared
/// prefix blocks (also within one step) = on permuted blocks = with 1 to 4 threads = a step ahead,
/// bit for bit, greedy and sampled; and each error that the contract names.
void check_conformance(const conformance_case& subject);

/// Runs the part of the suite about blocks in host memory: a sequence whose blocks were saved,
/// overwritten and restored into others has the bits of one that was never interrupted; saved and
/// restored in one step, to places that are used again, a step ahead; and the errors of wrong
/// copies.
void check_swapping(const conformance_case& subject);

} // namespace troupe::engine::test
