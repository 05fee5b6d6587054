#pragma once

#include "actors/cli/client.hpp"
#include "actors/cli/commands.hpp"

#include <functional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace troupe::cli {

/// Cuts a stream of server-sent events into the texts behind "data: ".
class event_reader {
public:
  explicit event_reader(std::function<void(std::string_view)> on_data);
  /// Takes bytes however they were cut.
  void feed(std::string_view bytes);

private:
  std::function<void(std::string_view)> on_data_;
  std::string line_;
};

/// Puts what was given on the command line into a body that does not say it itself.
void apply(const sampling_options& o, nlohmann::json& body);

/// A client of the URL with the key of the command line or the environment.
[[nodiscard]] result<http_client> open_client(const client_options& o);

/// What came of one streamed answer.
struct streamed {
  std::string text;
  std::string finish;
};

/// Posts `body` with "stream": true to /v1/chat/completions or /v1/completions and hands each piece
/// of text over as it comes.
/// @errors what the server says in an error, with its status' meaning (limit_exceeded: the context
///         is too long); io_failure; cancelled
[[nodiscard]] result<streamed> stream_answer(http_client& client, nlohmann::json body,
                                             const std::function<void(std::string_view)>& on_text,
                                             const std::function<bool()>& stop);

} // namespace troupe::cli
