#pragma once

#include "actors/cli/client.hpp"
#include "actors/cli/commands.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace troupe::cli {

/// One request of a file, ready to send.
struct job {
  /// From 1, in the file.
  std::size_t line = 0;
  std::string path;
  std::string body;
  /// Why it cannot be sent; empty when it can.
  std::string problem;
};

/// What came of it.
struct outcome {
  std::size_t line = 0;
  /// One per choice, in the order of the answer.
  std::vector<std::string> texts;
  std::vector<std::string> finishes;
  std::uint64_t prompt_tokens = 0;
  std::uint64_t completion_tokens = 0;
  std::string problem;
};

/// Reads one line: a body of /v1/chat/completions (with "messages") or of /v1/completions. What it
/// does not say comes from the command line; "stream" is switched off.
[[nodiscard]] job make_job(std::size_t line, const std::string& text, const std::string& model,
                           const sampling_options& sampling);

/// Sends it; 429 and 503 are tried again after what Retry-After says, a bounded number of times.
[[nodiscard]] outcome run_job(http_client& client, const job& what);

/// Reads the body of an answer into `out`, its problem if it is none.
void take_answer(const std::string& body, outcome& out);

/// {"line", "text", "finish_reason", "usage"}, with several choices {"line", "texts",
/// "finish_reasons", "usage"}, or {"line", "error"}; with a line break.
[[nodiscard]] std::string to_json_line(const outcome& what);

} // namespace troupe::cli
