#pragma once

#include "engine/request/step.hpp"

#include <span>
#include <string>
#include <string_view>
#include <vector>

/// The bulk of a step's messages as one run of bytes: a batch has hundreds of rows, and a general
/// serialiser takes longer over each field than the wire over all of them.
namespace troupe::engine {

/// What a step copies and computes, little-endian: how many blocks are saved and how many restored,
/// block and place of each, and a row behind the other: id, position, tokens, blocks with the sign
/// to sample on top, and the blocks.
/// @cost  about 20 bytes and 5 ns a row
[[nodiscard]] std::string pack_work(const step_batch& step);
/// Fills in what pack_work has of a step, and nothing else.
/// @errors corrupt_data: the bytes are not those of a step's work
[[nodiscard]] result<void> unpack_work(std::string_view bytes, step_batch& step);

/// Id and token of each.
[[nodiscard]] std::string pack_tokens(std::span<const sampled_token> tokens);
/// @errors corrupt_data: the bytes are not those of tokens
[[nodiscard]] result<std::vector<sampled_token>> unpack_tokens(std::string_view bytes);

} // namespace troupe::engine
