#pragma once

#include "troupe/base/error.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace troupe::cli {

/// http://host[:port][/base].
struct server_url {
  std::string host;
  std::string port = "80";
  std::string base;
};

/// @errors invalid_argument: not http, or no host; unsupported: https
[[nodiscard]] result<server_url> parse_url(std::string_view url);

struct http_answer {
  unsigned status = 0;
  std::string body;
  unsigned retry_after_s = 0;
};

/// A client of one cluster with one connection at a time. Blocks; one thread at a time.
class http_client {
public:
  http_client(server_url server, std::string api_key);
  ~http_client();
  http_client(http_client&&) noexcept;
  http_client& operator=(http_client&&) noexcept;

  struct call_options {
    std::string_view method = "GET";
    std::string_view path = {};
    std::string_view body = {};
    /// Given the bytes of a good answer as they come; they are then not in http_answer::body.
    std::function<void(std::string_view)> on_bytes = {};
    /// Asked ten times a second; true breaks the connection off and ends in `cancelled`.
    std::function<bool()> stop = {};
  };
  /// Sends one request and reads the answer, whatever its status.
  /// @errors io_failure: no connection, or it broke; corrupt_data: the answer is not HTTP;
  /// cancelled
  [[nodiscard]] result<http_answer> call(const call_options& what);

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

/// The sentence inside an OpenAI error body, or the body's beginning.
[[nodiscard]] std::string message_of(const http_answer& answer);

/// The model to ask: `wanted`, or the first that the cluster serves.
[[nodiscard]] result<std::string> choose_model(http_client& client, const std::string& wanted);

} // namespace troupe::cli
