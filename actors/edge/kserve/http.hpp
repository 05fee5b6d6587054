#pragma once

#include "actors/edge/exchange.hpp"
#include "actors/edge/kserve/infer_json.hpp"
#include "actors/edge/kserve/paths.hpp"
#include "actors/edge/kserve/service.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

namespace troupe::actors::kserve {

/// A request below /v2 as the connection has read it.
struct http_request {
  const path& where;
  std::string_view method;
  std::string_view body;
  /// The headers of these names; empty without.
  std::string_view json_length;
  std::string_view content_encoding;
  std::uint64_t max_body_bytes = 0;
  time_point arrival{};
};

/// Answers all that need not wait: what `waits` is false for.
[[nodiscard]] reply answer_plain(service& around, const http_request& request);

/// Opens an infer, generate, generate_stream, load or unload; or the refusal.
[[nodiscard]] tl::expected<std::unique_ptr<exchange>, reply>
open_exchange(std::shared_ptr<service> around, const http_request& request,
              std::function<void()> wake);

/// A failure as an answer.
[[nodiscard]] reply failure_reply(const failure& f);

} // namespace troupe::actors::kserve
