#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <tl/expected.hpp>

namespace troupe {

/// What kind of operating error happened: the part of an error that code branches on.
/// The note of the error, not the code, is for people.
enum class errc : std::uint8_t {
  none,
  /// An argument, a field of a file or of a request has a value that is not allowed.
  invalid_argument,
  /// A named thing (file, model, request, replica) does not exist.
  not_found,
  /// The value is valid, but this build or this model cannot serve it.
  unsupported,
  /// Two sources say different things about the same value.
  conflict,
  /// A file or a message is truncated, malformed or inconsistent.
  corrupt_data,
  /// The operating system refused: open, read, map, bind, listen.
  io_failure,
  /// A bounded queue is full; the same call may succeed later.
  busy,
  /// No KV block is free and none can be made free.
  pool_exhausted,
  /// Not enough memory for what was asked; the note says what would fit.
  out_of_memory,
  /// A size named in the arguments differs from the size found.
  bad_shape,
  /// The credentials are missing or wrong.
  unauthorized,
  /// A deadline passed.
  timed_out,
  /// The caller or the client withdrew the request.
  cancelled,
  /// The actor or process that held the work is gone.
  peer_down,
  /// The node is shutting down and takes no new work.
  draining,
  /// A limit on depth, time, size or count was reached while computing.
  limit_exceeded,
  /// A defect of ours, caught at an edge.
  internal,
};

/// The name of `code` as it appears in logs and metrics, e.g. "pool_exhausted".
[[nodiscard]] std::string_view to_string(errc code) noexcept;

/// An operating error: branch on `code`; `note` says to a person what was wrong, where, and the
/// mend.
struct error {
  errc code = errc::internal;
  std::string note;

  friend bool operator==(const error&, const error&) = default;
};

/// "code: note", for logs.
[[nodiscard]] std::string to_string(const error& e);

/// The value, or why there is none. Functions that return it are marked [[nodiscard]].
template <class T>
using result = tl::expected<T, error>;

/// Makes the error side of a `result`: `return fail(errc::not_found, "...")`.
[[nodiscard]] inline tl::unexpected<error> fail(errc code, std::string note) {
  return tl::unexpected<error>(error{code, std::move(note)});
}

/// Passes an error on: `if (!x) return fail(x.error());`.
[[nodiscard]] inline tl::unexpected<error> fail(error e) {
  return tl::unexpected<error>(std::move(e));
}

} // namespace troupe
