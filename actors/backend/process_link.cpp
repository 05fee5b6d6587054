#include "actors/backend/process_link.hpp"

#include "actors/process/hosted.hpp"

#include <fmt/core.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace troupe::actors {

namespace {

using namespace std::chrono_literals;

constexpr auto look_for_the_unwanted = 20ms;
constexpr auto look_otherwise = 1000ms;

std::string_view name_of(process::Order::WhatCase what) {
  switch (what) {
  case process::Order::kDeclare:
    return "auto_complete_config";
  case process::Order::kLoad:
    return "initialize";
  default:
    return "execute";
  }
}

} // namespace

result<std::unique_ptr<process_link>> process_link::start(link_options options) {
  if (!can_host())
    return fail(errc::unsupported, "this program has not said how it hosts a backend in a process "
                                   "of its own: it must call set_host_command(); or remove the "
                                   "parameter PROCESS");
  std::unique_ptr<process_link> link{new process_link{std::move(options)}};
  std::promise<result<void>> started;
  auto known = started.get_future();
  link->thread_ =
      std::thread{[raw = link.get(), p = std::move(started)]() mutable { raw->run(std::move(p)); }};
  if (auto good = known.get(); !good)
    return fail(good.error());
  return link;
}

process_link::~process_link() {
  {
    const std::lock_guard lock{mutex_};
    ending_ = true;
    end_by_ = steady::now();
  }
  wake();
  if (thread_.joinable())
    thread_.join();
  close_all();
}

void process_link::wake() const {
  const std::uint64_t one = 1;
  if (waker_ >= 0)
    std::ignore = ::write(waker_, &one, sizeof one);
}

bool process_link::alive() const {
  const std::lock_guard lock{mutex_};
  return !dead_;
}

result<process::Report> process_link::call(process::Order order, std::chrono::milliseconds limit,
                                           const custom_ways& ways) {
  std::future<result<process::Report>> answer;
  {
    const std::lock_guard lock{mutex_};
    if (dead_)
      return fail(*dead_);
    order.set_id(++last_id_);
    const auto id = last_id_;
    for (std::size_t i = 0; i < ways.size(); ++i)
      order.mutable_execute()->mutable_requests(static_cast<int>(i))->set_number(++last_id_);
    auto frame = framed(order);
    if (!frame)
      return fail(frame.error());
    outbox_ += *frame;
    for (std::size_t i = 0; i < ways.size(); ++i)
      open_[id + 1 + i] = {ways[i]};
    call_.emplace(open_call{.id = id,
                            .what = std::string{name_of(order.what_case())},
                            .limit = limit,
                            .until = steady::now() + limit,
                            .answer = {}});
    answer = call_->answer.get_future();
  }
  wake();
  return answer.get();
}

void process_link::end(std::chrono::milliseconds limit) {
  const auto until = steady::now() + limit;
  const auto busy = [&] {
    const std::lock_guard lock{mutex_};
    return !dead_ && std::any_of(open_.begin(), open_.end(),
                                 [](const auto& item) { return !item.second.forgotten; });
  };
  while (busy() && steady::now() < until)
    std::this_thread::sleep_for(look_for_the_unwanted);
  process::Order order;
  order.mutable_end();
  {
    const std::lock_guard lock{mutex_};
    if (const auto frame = framed(order))
      outbox_ += *frame;
    ending_ = true;
    end_by_ = until;
  }
  wake();
  if (thread_.joinable())
    thread_.join();
}

// What follows runs in the link's own thread.

void process_link::run(std::promise<result<void>> started) {
  auto good = spawn();
  const bool goes = good.has_value();
  if (!goes)
    dead_ = good.error();
  started.set_value(std::move(good));
  if (!goes)
    return;
  while (go_on()) {
  }
  bury(reap());
}

result<void> process_link::spawn() {
  waker_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (waker_ < 0)
    return fail(errc::io_failure,
                fmt::format("{} cannot be started: {}", options_.who, std::strerror(errno)));
  auto started = start_hosted(
      hosted_part::backend, [host = options_.host](child_stream from, std::string_view line) {
        host->log(from == child_stream::output ? backends::log_severity::info
                                               : backends::log_severity::warning,
                  line);
      });
  if (!started)
    return fail(started.error().code, fmt::format("{}: {}", options_.who, started.error().note));
  child_ = std::move(started->child);
  socket_ = started->socket;
  start_by_ = steady::now() + 60s;
  return {};
}

int process_link::pause() const {
  const std::lock_guard lock{mutex_};
  std::chrono::milliseconds most = open_.empty() ? look_otherwise : look_for_the_unwanted;
  const auto soon = [&](steady::time_point when) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(when - steady::now());
    most = std::clamp(left + 1ms, 0ms, most);
  };
  if (call_ && !start_by_)
    soon(call_->until);
  if (end_by_)
    soon(*end_by_);
  return static_cast<int>(most.count());
}

/// @return whether the child is still there
bool process_link::go_on() {
  bool to_send = false;
  {
    const std::lock_guard lock{mutex_};
    to_send = sent_ < outbox_.size();
  }
  std::vector<pollfd> all{{socket_, static_cast<short>(to_send ? POLLIN | POLLOUT : POLLIN), 0},
                          {waker_, POLLIN, 0}};
  child_.add_to(all);
  ::poll(all.data(), all.size(), pause());
  std::uint64_t times = 0;
  std::ignore = ::read(waker_, &times, sizeof times);
  send_some();
  const bool open = receive();
  child_.take_output();
  watch_times();
  forget_unwanted();
  return open && !child_.has_ended();
}

void process_link::send_some() {
  const std::lock_guard lock{mutex_};
  while (sent_ < outbox_.size()) {
    const auto n = ::send(socket_, outbox_.data() + sent_, outbox_.size() - sent_,
                          MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return;
    sent_ += static_cast<std::size_t>(n);
  }
  outbox_.clear();
  sent_ = 0;
}

/// @return false at the end of what the child sends
bool process_link::receive() {
  constexpr std::size_t piece = 256 * 1024;
  while (true) {
    const auto had = inbox_.size();
    inbox_.resize(had + piece);
    const auto n = ::recv(socket_, inbox_.data() + had, piece, MSG_DONTWAIT);
    inbox_.resize(had + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return (errno == EAGAIN || errno == EWOULDBLOCK) && take_all();
    if (n == 0) {
      std::ignore = take_all();
      return false;
    }
    if (static_cast<std::size_t>(n) < piece)
      return take_all();
  }
}

bool process_link::take_all() {
  while (true) {
    auto report = next_report(inbox_);
    if (!report) {
      inbox_.clear();
      kill_it(report.error().note);
      return false;
    }
    if (!*report)
      return true;
    take(std::move(**report));
  }
}

void process_link::take(process::Report report) {
  switch (report.what_case()) {
  case process::Report::kHere:
    return begin();
  case process::Report::kDone:
  case process::Report::kFailed:
  case process::Report::kDeclared:
    return answer_call(std::move(report));
  case process::Report::kLine: {
    const auto severity = std::min(report.line().severity(), 3U);
    return options_.host->log(static_cast<backends::log_severity>(severity), report.line().text());
  }
  case process::Report::kCount:
    return options_.host->count(report.count().metric(), report.count().value());
  case process::Report::kMeasure:
    return options_.host->measure(report.measure().metric(), report.measure().value());
  default:
    return take_exchange(report);
  }
}

/// The child has started: what a call may take counts from here.
void process_link::begin() {
  const std::lock_guard lock{mutex_};
  start_by_.reset();
  if (call_)
    call_->until = steady::now() + call_->limit;
}

void process_link::answer_call(process::Report report) {
  std::optional<open_call> done;
  {
    const std::lock_guard lock{mutex_};
    if (!call_ || call_->id != report.id())
      return;
    done = std::exchange(call_, std::nullopt);
  }
  if (report.has_failed())
    done->answer.set_value(fail(error_in(report.failed())));
  else
    done->answer.set_value(std::move(report));
}

void process_link::take_exchange(process::Report& report) {
  std::shared_ptr<custom_exchange> way;
  {
    const std::lock_guard lock{mutex_};
    const auto found = open_.find(report.id());
    if (found == open_.end())
      return;
    way = found->second.way;
  }
  if (report.has_response()) {
    const bool last = report.response().last();
    auto what = response_in(*report.mutable_response());
    if (what)
      way->respond(std::move(*what), last);
    else
      way->fail(what.error());
  } else if (report.has_finished()) {
    way->finish();
  } else if (report.has_refused()) {
    way->fail(error_in(report.refused()));
  }
  if (!report.has_gone() && !way->ended())
    return;
  const std::lock_guard lock{mutex_};
  open_.erase(report.id());
}

void process_link::watch_times() {
  std::string why;
  {
    const std::lock_guard lock{mutex_};
    const auto now = steady::now();
    if (start_by_)
      why = now >= *start_by_ ? "was ended because it had not started after 60 s" : "";
    else if (call_ && now >= call_->until)
      why =
          fmt::format("was ended because {} had not returned after {:g} s (PROCESS_LIMIT_SECONDS)",
                      call_->what, std::chrono::duration<double>(call_->limit).count());
    if (why.empty() && end_by_ && now >= *end_by_)
      why = "was ended because it did not finish in time";
  }
  if (!why.empty())
    kill_it(std::move(why));
}

/// Tells the child, once, of each exchange whose client has gone.
void process_link::forget_unwanted() {
  const std::lock_guard lock{mutex_};
  for (auto& [id, one] : open_) {
    if (one.forgotten || one.way->wanted())
      continue;
    one.forgotten = true;
    process::Order order;
    order.set_id(id);
    order.mutable_forget();
    if (const auto frame = framed(order))
      outbox_ += *frame;
  }
}

} // namespace troupe::actors
