#pragma once

#include "proto/backend_process.pb.h"
#include "troupe/actors/backend_api.hpp"
#include "troupe/config/backend_needs.hpp"

#include <optional>
#include <string>

/// The words between a process and the child that hosts a backend, to and from the classes of the
/// backend interface. What comes from a child is believed as little as what comes from a client.
namespace troupe::actors {

void put(process::Model& to, const backends::model_facts& from);
void put(process::Request& to, const backends::request& from);
void put(process::Response& to, backends::response from);
void put(process::Declared& to, const backends::declarations& from);
void put(process::Fault& to, const error& from);

[[nodiscard]] backends::model_facts facts_in(const process::Model& from);
[[nodiscard]] backends::request request_in(process::Request& from);
/// @errors corrupt_data: a type that there is not
[[nodiscard]] result<backends::response> response_in(process::Response& from);
[[nodiscard]] result<backends::declarations> declarations_in(const process::Declared& from);
[[nodiscard]] error error_in(const process::Fault& from);

/// The message behind its length.
/// @errors limit_exceeded: it has 2 GiB or more
template <class Message>
[[nodiscard]] result<std::string> framed(const Message& message) {
  const std::size_t size = message.ByteSizeLong();
  if (size > static_cast<std::size_t>(INT32_MAX))
    return fail(errc::limit_exceeded, "tensors of 2 GiB and more do not pass to a backend in a "
                                      "process of its own");
  const auto length = static_cast<std::uint32_t>(size);
  std::string frame(reinterpret_cast<const char*>(&length), sizeof length);
  if (!message.AppendToString(&frame))
    return fail(errc::internal, "a message to a backend's process cannot be written");
  return frame;
}

/// The first whole message of `from`, which is then taken off; none when it has not all come.
/// @errors corrupt_data: what is there is none
[[nodiscard]] result<std::optional<process::Report>> next_report(std::string& from);

/// What config is told of a custom library.
[[nodiscard]] config::backend_needs needs_of(const backends::declarations& wishes);

} // namespace troupe::actors
