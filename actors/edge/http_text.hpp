#pragma once

#include "actors/edge/api_error.hpp"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace troupe::actors {

/// A complete answer that is not a stream.
struct reply {
  unsigned status = 200;
  std::string type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

/// An error as an answer, with Retry-After and Allow where they belong.
[[nodiscard]] reply error_reply(const api_error& e);

/// What the connection adds to every head.
struct head_facts {
  bool keep_alive = true;
  /// Framing of a stream: chunked in HTTP/1.1, ended by closing in 1.0.
  bool chunked = false;
  bool http10 = false;
  std::string request_id;
};

/// Status line and headers, with the empty line; with the length of the body.
[[nodiscard]] std::string head_of(const reply& r, const head_facts& facts);
/// The head of a stream of server-sent events.
[[nodiscard]] std::string stream_head(const head_facts& facts);
/// `bytes` as one chunk of a chunked body; nothing for no bytes.
[[nodiscard]] std::string chunk_of(std::string_view bytes);
/// The chunk that ends a body.
[[nodiscard]] std::string last_chunk();

} // namespace troupe::actors
