#pragma once

#include "actors/edge/http_text.hpp"

#include <optional>
#include <string>

namespace troupe::actors {

/// One answer that takes time, whatever the API: the connection asks for what there is to send and
/// is woken when there is more. Destroying it abandons what has not ended.
class exchange {
public:
  struct output {
    /// The whole answer, or the error that came before anything of a stream.
    std::optional<reply> whole;
    /// The next events of a stream.
    std::string bytes;
    /// Nothing follows.
    bool end = false;
    /// It ended in an error event and the connection must close.
    bool broken = false;
  };

  virtual ~exchange() = default;
  /// Asks the backend.
  virtual void begin() = 0;
  /// What there is to send now.
  [[nodiscard]] virtual output take() = 0;
};

} // namespace troupe::actors
