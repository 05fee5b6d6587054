// The part of a link that sees its child out.
#include "actors/backend/process_link.hpp"

#include "actors/backend/process_spawn.hpp"

#include <fmt/core.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <tuple>
#include <utility>

namespace troupe::actors {

using namespace std::chrono_literals;

/// With all that it has started itself.
void process_link::kill_it(std::string why) {
  if (killed_for_.empty())
    killed_for_ = std::move(why);
  if (::kill(-pid_, SIGKILL) != 0)
    ::kill(pid_, SIGKILL);
}

/// Whether the child has ended; it stays to be waited for.
bool process_link::has_ended() const {
  siginfo_t ended{};
  return waitid(P_PID, static_cast<id_t>(pid_), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         ended.si_pid == pid_;
}

/// @return how it ended
std::string process_link::reap() {
  // One that has closed its end is about to go; one that only closed it is helped.
  constexpr int looks = 200;
  for (int i = 0; i < looks && !has_ended(); ++i)
    std::this_thread::sleep_for(10ms);
  if (!has_ended())
    kill_it("closed its connection and was ended");
  // What it has started goes with it.
  ::kill(-pid_, SIGKILL);
  int status = 0;
  waitpid(pid_, &status, 0);
  std::ignore = receive();
  for (auto& one : printed_) {
    print(one);
    if (!one.line.empty())
      options_.host->log(one.severity, std::exchange(one.line, {}));
  }
  return killed_for_.empty() ? describe_end(status) : killed_for_;
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
  for (int* const fd : {&socket_, &waker_, &printed_[0].from, &printed_[1].from})
    if (*fd >= 0)
      ::close(std::exchange(*fd, -1));
}

} // namespace troupe::actors
