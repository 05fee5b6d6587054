#pragma once

#include "transport/ucx/courier.hpp"
#include "transport/ucx/driver.hpp"
#include "transport/ucx/waker.hpp"
#include "troupe/transport/ucx.hpp"

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace troupe::net::ucx {

/// One node on the real network: a mesh over UCX, and the thread that moves it.
///
/// One mutex guards mesh, driver and worker. The progress thread holds it while it works and lets
/// it go while it calls the user; a sender that finds it free sends in its own thread, and else
/// leaves its message in a queue that the holder of the mutex empties first, which keeps the order.
/// While payloads wait to be copied here, and cores are to spare, a courier calls the user.
class node final : public transport {
public:
  node(options how, handler& user);
  ~node() override { stop(); }

  /// Starts UCX and the progress thread. @errors unsupported, io_failure
  [[nodiscard]] result<void> start();

  [[nodiscard]] const identity& self() const noexcept override {
    return mesh_.settings().options.self;
  }
  [[nodiscard]] result<address> listen(const address& where) override;
  [[nodiscard]] dial_id dial(const address& where) override;
  [[nodiscard]] result<std::uint64_t> send(const node_id& to, std::span<const std::byte> header,
                                           shared_bytes payload, pressure how) override;
  using transport::send;
  void drain(const node_id& peer) override;
  void close(const node_id& peer) override;
  void forgive(const node_id& peer) override;
  void post(std::function<void()> job) override;
  [[nodiscard]] std::vector<peer_stats> stats() const override;
  void stop() override;

  /// For tests: receive buffers that have owners, endpoints of UCX, and malformed frames seen.
  [[nodiscard]] std::uint64_t buffers_out() const { return driver_.pool().stats().buffers_out; }
  [[nodiscard]] std::size_t endpoints() const;
  [[nodiscard]] std::uint64_t malformed() const;

private:
  struct message {
    node_id to;
    ticket admitted;
    outgoing_frame frame;
  };
  /// A message, or something to do for the mesh.
  struct item {
    message what;
    std::function<void(time_point)> call = {};
  };

  void enqueue(item what);
  void command(std::function<void(time_point)> call) { enqueue({{}, std::move(call)}); }
  /// Empties the queue into the mesh. @pre mutex_ is held
  bool take_queue(time_point now);
  void run();
  [[nodiscard]] bool turn(time_point now);
  /// Has the user called with what came, here or by the courier. @return whether jobs did
  bool hand_over();
  void call_user(delivery& what);
  void sleep();
  void end();
  void dial_named(dial_id id, const address& where);
  [[nodiscard]] bool may_spin(time_point now) const;

  options options_;
  handler& user_;
  std::shared_ptr<waker> waker_ = std::make_shared<waker>();
  admission door_;
  mutable std::mutex mutex_;
  driver driver_;
  mesh mesh_;
  std::mutex queue_mutex_;
  std::vector<item> queue_;
  std::vector<item> taken_;
  std::atomic<std::size_t> queued_ = 0;
  std::mutex jobs_mutex_;
  std::vector<std::function<void()>> jobs_;
  std::atomic<std::size_t> jobs_waiting_ = 0;
  std::atomic<std::uint64_t> next_dial_ = 1;
  std::mutex lookups_mutex_;
  std::vector<std::thread> lookups_;
  delivery delivery_;
  /// Whether payloads wait to be copied by the progress thread.
  bool copies_wait_ = false;
  courier courier_;
  bool listens_ = false;
  std::atomic<bool> stopping_ = false;
  std::once_flag stopped_;
  /// Since when nothing has happened; taken by the first turn that finds nothing.
  time_point idle_since_{};
  bool was_active_ = true;
  std::thread thread_;
};

} // namespace troupe::net::ucx
