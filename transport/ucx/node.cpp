#include "transport/ucx/node.hpp"

#include "transport/proof.hpp"
#include "transport/ucx/process.hpp"
#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace troupe::net::ucx {

namespace {

using namespace std::chrono_literals;

/// With fewer cores a second thread to call the user is in the way of actors.
constexpr unsigned courier_cores = 4;
/// How often ending endpoints take a step when nothing else happens.
constexpr auto closing_step = 2ms;

time_point now_here() { return steady_clock{}.now(); }

connection_settings settings_of(const options& how, const std::shared_ptr<waker>& wake) {
  connection_settings out;
  out.options = how.node;
  out.random = system_entropy();
  out.where = this_process();
  out.on_room = [wake] { wake->room(); };
  if (!out.options.self.id)
    out.options.self.id = draw_node_id(out.random);
  return out;
}

} // namespace

result<std::unique_ptr<transport>> make(options how, handler& user) {
  auto out = std::make_unique<node>(std::move(how), user);
  if (auto started = out->start(); !started)
    return fail(started.error());
  return out;
}

node::node(options how, handler& user)
    : options_{std::move(how)}, user_{user}, door_{options_.node.limits}, driver_{this_process()},
      mesh_{settings_of(options_, waker_), driver_, door_}, courier_{[this](delivery& what) {
                                                                       call_user(what);
                                                                     },
                                                                     options_.spin} {
  if (options_.cores == 0)
    options_.cores = std::max(1U, std::thread::hardware_concurrency());
  driver_.serve(mesh_);
}

result<void> node::start() {
  if (auto started = driver_.start(options_.lanes); !started)
    return started;
  thread_ = std::thread{[this] { run(); }};
  return {};
}

result<address> node::listen(const address& where) {
  if (auto allowed = may_listen(self(), where); !allowed)
    return fail(allowed.error());
  const std::lock_guard guard{mutex_};
  if (listens_)
    return fail(errc::conflict, fmt::format("node '{}' listens already", self().name));
  auto at = driver_.listen(where);
  if (at) {
    listens_ = true;
    mesh_.listens_at(*at);
    command([](time_point) {});
  }
  return at;
}

dial_id node::dial(const address& where) {
  const dial_id id{next_dial_++};
  if (numeric(where)) {
    command([this, id, where](time_point now) { mesh_.dial(id, where, now); });
    return id;
  }
  const std::lock_guard guard{lookups_mutex_};
  lookups_.emplace_back([this, id, where] { dial_named(id, where); });
  return id;
}

/// In a thread of its own, since looking a name up blocks.
void node::dial_named(dial_id id, const address& where) {
  auto found = resolve(where);
  if (!found) {
    post([this, id, where, why = found.error()] { user_.dialed(id, where, fail(why)); });
    return;
  }
  command([this, id, where, at = *found](time_point now) {
    driver_.learn(where, at);
    mesh_.dial(id, where, now);
  });
}

void node::enqueue(item what) {
  {
    const std::lock_guard guard{queue_mutex_};
    queue_.push_back(std::move(what));
    queued_.store(queue_.size(), std::memory_order_seq_cst);
  }
  waker_->wake();
}

bool node::take_queue(time_point now) {
  if (queued_.load(std::memory_order_seq_cst) == 0)
    return false;
  {
    const std::lock_guard guard{queue_mutex_};
    taken_.swap(queue_);
    queued_.store(0, std::memory_order_seq_cst);
  }
  for (auto& next : taken_) {
    if (next.call)
      next.call(now);
    else
      mesh_.enqueue(next.what.to, next.what.admitted, std::move(next.what.frame));
  }
  taken_.clear();
  return true;
}

result<std::uint64_t> node::send(const node_id& to, std::span<const std::byte> header,
                                 shared_bytes payload, pressure how) {
  auto in = door_.admit(to, header.size(), payload.size(), how);
  if (!in)
    return fail(in.error());
  const auto queued_bytes = in->queued_bytes;
  message what{to, std::move(*in), make_message(header, std::move(payload))};
  std::unique_lock lock{mutex_, std::try_to_lock};
  if (!lock) {
    enqueue({std::move(what)});
    return queued_bytes;
  }
  const auto now = now_here();
  take_queue(now);
  const auto open = driver_.sends_open();
  mesh_.enqueue(what.to, what.admitted, std::move(what.frame));
  mesh_.flush(now);
  const bool left_over = driver_.sends_open() != open || driver_.is_pressing() ||
                         mesh_.has_events() || mesh_.is_gathering();
  lock.unlock();
  // What UCX did not complete at once needs the progress thread, and so does what others queued.
  if (left_over || queued_.load(std::memory_order_seq_cst) != 0)
    waker_->wake();
  return queued_bytes;
}

void node::drain(const node_id& peer) {
  command([this, peer](time_point now) { mesh_.drain(peer, now); });
}

void node::close(const node_id& peer) {
  command([this, peer](time_point now) { mesh_.close(peer, now); });
}

void node::forgive(const node_id& peer) {
  command([this, peer](time_point) { mesh_.forgive(peer); });
}

void node::post(std::function<void()> job) {
  {
    const std::lock_guard guard{jobs_mutex_};
    jobs_.push_back(std::move(job));
    jobs_waiting_.store(jobs_.size(), std::memory_order_seq_cst);
  }
  waker_->wake();
}

std::vector<peer_stats> node::stats() const {
  const std::lock_guard guard{mutex_};
  return mesh_.stats();
}

std::size_t node::endpoints() const {
  const std::lock_guard guard{mutex_};
  return driver_.endpoints();
}

std::uint64_t node::malformed() const {
  const std::lock_guard guard{mutex_};
  return driver_.malformed();
}

/// One turn under the lock. @return true when something happened
bool node::turn(time_point now) {
  const std::lock_guard guard{mutex_};
  bool active = take_queue(now);
  mesh_.flush(now);
  active = driver_.progress(now) || active;
  if (waker_->take_room() || mesh_.due() <= now) {
    mesh_.tick(now);
    active = true;
  }
  mesh_.flush(now);
  mesh_.take_events(delivery_.events);
  copies_wait_ = driver_.has_copies();
  return active || !delivery_.events.empty();
}

/// Without a lock.
bool node::hand_over() {
  const bool has_jobs = jobs_waiting_.load(std::memory_order_seq_cst) != 0;
  if (has_jobs) {
    const std::lock_guard guard{jobs_mutex_};
    delivery_.jobs.swap(jobs_);
    jobs_waiting_.store(0, std::memory_order_seq_cst);
  }
  if (delivery_.empty())
    return false;
  // Who has begun must have ended: the user sees everything in its order.
  if (courier_.busy() || (copies_wait_ && options_.cores >= courier_cores))
    courier_.give(delivery_);
  else
    call_user(delivery_);
  return has_jobs;
}

void node::call_user(delivery& what) {
  for (const auto& one : what.events)
    deliver(one, user_);
  for (const auto& job : what.jobs)
    job();
  what.events.clear();
  what.jobs.clear();
}

bool node::may_spin(time_point now) const {
  return options_.spin > duration{0} && now - idle_since_ < options_.spin;
}

void node::sleep() {
  waker_->will_sleep();
  const bool busy = queued_.load(std::memory_order_seq_cst) != 0 ||
                    jobs_waiting_.load(std::memory_order_seq_cst) != 0 || waker_->has_room() ||
                    stopping_.load(std::memory_order_seq_cst);
  std::unique_lock lock{mutex_};
  // A sender may have used the worker since the last turn; that leaves events or broken links.
  if (busy || driver_.is_pressing() || mesh_.has_events() || mesh_.is_gathering() ||
      !driver_.arm()) {
    waker_->is_awake();
    return;
  }
  auto until = mesh_.due();
  const auto now = now_here();
  if (driver_.is_closing())
    until = std::min(until, now + closing_step);
  lock.unlock();
  int milliseconds = -1;
  if (until != time_point::max()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - now);
    milliseconds = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
  }
  waker_->sleep(driver_.descriptor(), milliseconds);
}

void node::run() {
  while (!stopping_.load(std::memory_order_relaxed)) {
    // The one look at the clock in a turn: each is a hundredth of a message's way.
    const auto now = now_here();
    const bool active = turn(now);
    if (hand_over() || active) {
      was_active_ = true;
      continue;
    }
    if (std::exchange(was_active_, false))
      idle_since_ = now;
    if (may_spin(now))
      __builtin_ia32_pause();
    else
      sleep();
  }
  end();
}

/// The end of the progress thread: drains all peers, then closes what is left.
void node::end() {
  const auto& clocks = options_.node.timing;
  command([this](time_point now) { mesh_.drain_all(now); });
  const auto deadline = now_here() + clocks.drain_timeout + clocks.dead_after;
  bool done = false;
  while (!done) {
    const bool active = turn(now_here());
    hand_over();
    const std::lock_guard guard{mutex_};
    done = mesh_.connections() == 0 || now_here() >= deadline;
    if (!done && !active)
      std::this_thread::yield();
  }
  {
    const std::lock_guard guard{mutex_};
    mesh_.close_all(now_here());
    driver_.shut_down(now_here() + 3s);
    mesh_.take_events(delivery_.events);
    copies_wait_ = false;
  }
  hand_over();
  courier_.stop();
}

void node::stop() {
  std::call_once(stopped_, [this] {
    {
      const std::lock_guard guard{lookups_mutex_};
      for (auto& lookup : lookups_)
        lookup.join();
    }
    if (!thread_.joinable())
      return;
    stopping_.store(true, std::memory_order_seq_cst);
    waker_->wake();
    thread_.join();
    hand_over();
  });
}

} // namespace troupe::net::ucx
