// The child's side: one instance of one backend, in a process without actors. A reader in the first
// thread, the library in another; the end of the connection is the end of the process.
#include "actors/backend/library.hpp"
#include "actors/backend/library_host.hpp"
#include "actors/backend/process_messages.hpp"
#include "actors/process/hosted.hpp"

#include <fmt/core.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace troupe::actors {

namespace {

/// The way to the parent. Without a parent there is nothing left to do.
class parent_port {
public:
  void send(const process::Report& report) {
    const auto frame = framed(report);
    if (!frame)
      return refuse(report.id(), frame.error());
    const std::lock_guard lock{mutex_};
    for (std::size_t sent = 0; sent < frame->size();) {
      const auto n =
          ::send(hosted_socket, frame->data() + sent, frame->size() - sent, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR)
        continue;
      if (n <= 0)
        _exit(0);
      sent += static_cast<std::size_t>(n);
    }
  }
  void refuse(std::uint64_t id, const error& why) {
    process::Report report;
    report.set_id(id);
    put(*report.mutable_refused(), why);
    send(report);
  }

private:
  std::mutex mutex_;
};

/// One request, as the library sees it.
class far_exchange final : public backends::exchange {
public:
  far_exchange(std::uint64_t id, backends::request input, bool decoupled, parent_port& parent)
      : id_{id}, input_{std::move(input)}, decoupled_{decoupled}, parent_{parent} {}
  ~far_exchange() override {
    tell([](process::Report& r) { r.mutable_gone(); });
  }
  far_exchange(const far_exchange&) = delete;
  far_exchange& operator=(const far_exchange&) = delete;

  [[nodiscard]] const backends::request& input() const override { return input_; }
  void respond(backends::response what, bool is_last) override {
    const std::lock_guard lock{mutex_};
    if (std::exchange(ended_, ended_ || is_last || !decoupled_))
      return;
    tell([&](process::Report& r) {
      put(*r.mutable_response(), std::move(what));
      r.mutable_response()->set_last(is_last);
    });
  }
  void finish() override {
    if (end())
      tell([](process::Report& r) { r.mutable_finished(); });
  }
  void fail(error why) override {
    if (end())
      parent_.refuse(id_, why);
  }
  [[nodiscard]] bool wanted() const override {
    const std::lock_guard lock{mutex_};
    return !ended_;
  }
  /// The client is gone, or the answer has ended at the parent's.
  bool end() {
    const std::lock_guard lock{mutex_};
    return !std::exchange(ended_, true);
  }

private:
  template <class F>
  void tell(F&& fill) {
    process::Report report;
    report.set_id(id_);
    fill(report);
    parent_.send(report);
  }

  std::uint64_t id_;
  backends::request input_;
  bool decoupled_;
  parent_port& parent_;
  mutable std::mutex mutex_;
  bool ended_ = false;
};

using far_ways = std::vector<std::shared_ptr<far_exchange>>;

class far_host final : public backends::host {
public:
  explicit far_host(parent_port& parent) : parent_{parent} {}
  void log(backends::log_severity severity, std::string_view text) override {
    process::Report report;
    report.mutable_line()->set_severity(static_cast<std::uint32_t>(severity));
    report.mutable_line()->set_text(std::string{text});
    parent_.send(report);
  }
  void count(std::string_view metric, double by) override {
    process::Report report;
    report.mutable_count()->set_metric(std::string{metric});
    report.mutable_count()->set_value(by);
    parent_.send(report);
  }
  void measure(std::string_view metric, double value) override {
    process::Report report;
    report.mutable_measure()->set_metric(std::string{metric});
    report.mutable_measure()->set_value(value);
    parent_.send(report);
  }

private:
  parent_port& parent_;
};

class hosting {
public:
  [[noreturn]] void run() {
    process::Report here;
    here.mutable_here();
    parent_.send(here);
    std::thread{[this] { serve(); }}.detach();
    while (auto order = read()) {
      if (order->has_forget())
        forget(order->id());
      else
        push(std::move(*order));
    }
    _exit(0);
  }

private:
  std::optional<process::Order> read() {
    std::uint32_t length = 0;
    process::Order order;
    if (!read_all(reinterpret_cast<char*>(&length), sizeof length))
      return std::nullopt;
    frame_.resize(length);
    if (!read_all(frame_.data(), length) || !order.ParseFromString(frame_))
      return std::nullopt;
    return order;
  }

  static bool read_all(char* to, std::size_t count) {
    while (count > 0) {
      const auto n = ::recv(hosted_socket, to, count, 0);
      if (n < 0 && errno == EINTR)
        continue;
      if (n <= 0)
        return false;
      to += n;
      count -= static_cast<std::size_t>(n);
    }
    return true;
  }

  void push(process::Order order) {
    const std::lock_guard lock{mutex_};
    if (order.has_execute()) {
      std::erase_if(open_, [](const auto& item) { return item.second.expired(); });
      auto& ways = ways_[order.id()];
      for (auto& one : *order.mutable_execute()->mutable_requests()) {
        ways.push_back(
            std::make_shared<far_exchange>(one.number(), request_in(one), decoupled_, parent_));
        open_[one.number()] = ways.back();
      }
    } else if (order.has_load()) {
      decoupled_ = order.load().decoupled();
    }
    orders_.push_back(std::move(order));
    some_.notify_one();
  }

  void forget(std::uint64_t id) {
    std::shared_ptr<far_exchange> way;
    {
      const std::lock_guard lock{mutex_};
      if (const auto found = open_.find(id); found != open_.end())
        way = found->second.lock();
    }
    if (way)
      way->end();
  }

  // What follows runs in the library's thread.

  void serve() {
    while (true) {
      process::Order order;
      far_ways ways;
      {
        std::unique_lock lock{mutex_};
        some_.wait(lock, [this] { return !orders_.empty(); });
        order = std::move(orders_.front());
        orders_.pop_front();
        if (const auto found = ways_.find(order.id()); found != ways_.end()) {
          ways = std::move(found->second);
          ways_.erase(found);
        }
      }
      process::Report report;
      report.set_id(order.id());
      report.mutable_done();
      if (const auto done = carry_out(order, report, ways); !done)
        put(*report.mutable_failed(), done.error());
      ways.clear();
      parent_.send(report);
      if (order.has_end())
        leave();
    }
  }

  [[nodiscard]] result<void> carry_out(const process::Order& order, process::Report& report,
                                       const far_ways& ways) {
    if (order.has_declare())
      return declare(order.declare(), *report.mutable_declared());
    if (order.has_load())
      return load(order.load());
    if (order.has_end())
      return finalize();
    if (!backend_)
      return troupe::fail(errc::internal, "the backend was not initialized");
    std::vector<backends::exchange_ptr> all;
    std::copy_if(ways.begin(), ways.end(), std::back_inserter(all),
                 [](const auto& way) { return way->wanted(); });
    if (all.empty())
      return {};
    return guarded(where("execute"), [&] { return backend_->execute(all); });
  }

  [[nodiscard]] result<std::unique_ptr<backends::backend>> make(const process::Model& model) {
    name_ = model.backend();
    const auto library = backend_library::open(model.library(), name_);
    if (!library)
      return troupe::fail(library.error());
    if (library->is_hybrid())
      return troupe::fail(errc::unsupported,
                          fmt::format("the backend '{}' builds on the engine and lives in its "
                                      "process; remove the parameter PROCESS",
                                      name_));
    return library->make();
  }

  [[nodiscard]] result<void> declare(const process::Model& model, process::Declared& to) {
    auto made = make(model);
    if (!made)
      return troupe::fail(made.error());
    backends::declarations wishes;
    const auto facts = facts_in(model);
    auto done = guarded(where("auto_complete_config"),
                        [&] { return (*made)->auto_complete_config(facts, wishes); });
    put(to, wishes);
    return done;
  }

  [[nodiscard]] result<void> load(const process::Model& model) {
    auto made = make(model);
    if (!made)
      return troupe::fail(made.error());
    const auto facts = facts_in(model);
    auto done = guarded(where("initialize"), [&] { return (*made)->initialize(facts, host_); });
    if (done)
      backend_ = std::move(*made);
    return done;
  }

  [[nodiscard]] result<void> finalize() {
    if (!backend_)
      return {};
    auto done = guarded(where("finalize"), [&]() -> result<void> {
      backend_->finalize();
      return {};
    });
    if (!done)
      host_.log(backends::log_severity::error, done.error().note);
    backend_.reset();
    return done;
  }

  /// Without the destructors of libraries, which nobody needs any more.
  [[noreturn]] static void leave() {
    std::fflush(nullptr);
    _exit(0);
  }

  [[nodiscard]] std::string where(std::string_view function) const {
    return fmt::format("{} of the backend '{}'", function, name_);
  }

  parent_port parent_;
  far_host host_{parent_};
  std::string frame_;
  std::string name_;
  std::unique_ptr<backends::backend> backend_;

  std::mutex mutex_;
  std::condition_variable some_;
  std::deque<process::Order> orders_;
  std::map<std::uint64_t, far_ways> ways_;
  std::map<std::uint64_t, std::weak_ptr<far_exchange>> open_;
  bool decoupled_ = false;
};

} // namespace

void serve_backend() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  static hosting all;
  all.run();
}

} // namespace troupe::actors
