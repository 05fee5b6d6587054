#pragma once

#include "actors/cli/commands.hpp"
#include "troupe/base/child_process.hpp"

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace troupe::cli {

/// A cluster of one node in a child process of this program, on free ports of the loopback. Ends
/// with its owner. One thread, but for what its own thread reads.
class compare_side {
public:
  /// How a cluster is started: what one types behind `troupe up`.
  struct recipe {
    /// "base" or "custom", for sentences.
    std::string name;
    file_options config;
    std::string executor;
  };
  /// Starts it and waits until its models are loaded.
  /// @param waiting is called meanwhile
  /// @errors invalid_argument: the file is wrong; unsupported: several nodes; peer_down: it ended
  [[nodiscard]] static result<std::unique_ptr<compare_side>>
  start(const recipe& how, const std::function<void()>& waiting);
  ~compare_side();
  compare_side(const compare_side&) = delete;
  compare_side& operator=(const compare_side&) = delete;

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] const std::string& url() const noexcept { return url_; }
  /// Why a request may have found nobody: the end of the process with its last words, or nothing.
  [[nodiscard]] std::string epitaph();

private:
  explicit compare_side(std::string name) : name_{std::move(name)} {}
  void take(std::string line);
  void read_on();
  [[nodiscard]] result<void> await_ready(const std::function<void()>& waiting);
  [[nodiscard]] bool look(bool& ready);

  std::string name_;
  std::string url_;
  child_process process_;
  std::mutex mutex_;
  std::deque<std::string> last_lines_;
  std::string found_url_;
  std::string end_;
  bool ready_ = false;
  bool stop_ = false;
  std::thread reader_;
};

} // namespace troupe::cli
