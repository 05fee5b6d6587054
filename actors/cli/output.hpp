#pragma once

#include "troupe/base/error.hpp"

#include <cstdio>
#include <string_view>

namespace troupe::cli {

/// Makes sure that standard input, output and error are open, so that no socket takes their place.
/// What was closed can then neither be read nor written, as if it were still closed.
void open_standard_streams();

/// Writes `text` and what is still buffered.
/// @errors io_failure: something of this stream could not be written, now or before
[[nodiscard]] result<void> write_out(std::FILE* out, std::string_view text);

/// Writes what is still buffered for standard output.
/// @errors io_failure: as above
[[nodiscard]] inline result<void> flush_output() { return write_out(stdout, {}); }

} // namespace troupe::cli
