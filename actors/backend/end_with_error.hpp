#pragma once

#include "troupe/actors/inference.hpp"
#include "troupe/base/error.hpp"

#include <utility>

namespace troupe::actors {

/// Ends a request with an error.
inline void end_with_error(response_sink& sink, error why) {
  response_part last;
  last.finish = engine::finish_reason::error;
  last.why = std::move(why);
  sink.on_part(std::move(last));
}

} // namespace troupe::actors
