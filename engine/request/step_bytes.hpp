#pragma once

#include "engine/request/step.hpp"

#include <span>
#include <string>
#include <string_view>
#include <vector>

/// The bulk of a step's messages as one run of bytes: a batch has hundreds of rows, and a general
/// serialiser takes longer over each field than the wire over all of them.
namespace troupe::engine {

/// Little-endian, a row behind the other: id, position, tokens, blocks with the sign to sample on
/// top, and the blocks.
/// @cost  about 20 bytes and 5 ns a row
[[nodiscard]] std::string pack_rows(std::span<const step_row> rows);
/// @errors corrupt_data: the bytes are not those of rows
[[nodiscard]] result<std::vector<step_row>> unpack_rows(std::string_view bytes);

/// Id and token of each.
[[nodiscard]] std::string pack_tokens(std::span<const sampled_token> tokens);
/// @errors corrupt_data: the bytes are not those of tokens
[[nodiscard]] result<std::vector<sampled_token>> unpack_tokens(std::string_view bytes);

} // namespace troupe::engine
