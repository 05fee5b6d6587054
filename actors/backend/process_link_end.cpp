// The part of a link that sees its child out.
#include "actors/backend/process_link.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <tuple>
#include <utility>

namespace troupe::actors {

using namespace std::chrono_literals;

/// With all that it has started itself.
void process_link::kill_it(std::string why) {
  if (killed_for_.empty())
    killed_for_ = std::move(why);
  child_.kill_group();
}

/// @return how it ended
std::string process_link::reap() {
  // One that has closed its end is about to go; one that only closed it is helped.
  if (!child_.has_ended_within(2s))
    kill_it("closed its connection and was ended");
  // What it has started goes with it.
  child_.kill_group();
  const auto status = child_.reap();
  std::ignore = receive();
  return killed_for_.empty() ? "ended with " + describe_exit(status) : killed_for_;
}

/// Ends what is open with the reason.
void process_link::bury(const std::string& how) {
  std::map<std::uint64_t, open_exchange> open;
  std::optional<open_call> call;
  bool told = false;
  error why{errc::internal, fmt::format("{} {}", options_.who, how)};
  {
    const std::lock_guard lock{mutex_};
    call = std::exchange(call_, std::nullopt);
    open.swap(open_);
    told = ending_;
    if (call && killed_for_.empty())
      why.note += " in " + call->what;
    dead_ = why;
  }
  for (auto& [id, one] : open)
    one.way->fail(why);
  if (call)
    call->answer.set_value(fail(why));
  if (!told)
    options_.on_lost();
  else if (how != "ended with status 0")
    options_.host->log(backends::log_severity::error, why.note);
}

void process_link::close_all() {
  for (int* const fd : {&socket_, &waker_})
    if (*fd >= 0)
      ::close(std::exchange(*fd, -1));
}

} // namespace troupe::actors
