// A backend that crashes, hangs and leaves on demand, so that tests see what becomes of the rest.

#include <troupe/actors/backend_api.hpp>

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace {

using namespace troupe::backends;
using troupe::result;

[[noreturn]] void crash() {
  std::raise(SIGSEGV);
  std::abort();
}

void hang() {
  while (true)
    std::this_thread::sleep_for(std::chrono::seconds{1});
}

class fragile : public backend {
public:
  fragile() {
#ifdef FRAGILE_CONSTRUCTOR_CRASHES
    crash();
#endif
  }

  result<void> auto_complete_config(const model_facts& model, declarations& wanted) override {
    if (model.parameter("mode") == "crash in auto_complete")
      crash();
    if (model.parameter("mode") == "hang in auto_complete")
      hang();
    wanted.inputs = {{"IN", datatype::bytes, {1}}};
    wanted.outputs = {{"OUT", datatype::bytes, {1}}};
    wanted.max_batch_size = 0;
    wanted.decoupled = model.parameter("mode") == "stream";
    return {};
  }

  result<void> initialize(const model_facts& model, host& around) override {
    directory_ = model.directory;
    around_ = &around;
    if (model.parameter("mode") == "crash in initialize" ||
        std::filesystem::exists(directory_ / "crash"))
      crash();
    stream_ = model.parameter("mode") == "stream";
    around.log(log_severity::info, "begins");
    return {};
  }

  result<void> execute(std::span<const exchange_ptr> requests) override {
    const auto& one = requests.front();
    const std::string word{one->input().find("IN")->strings().at(0)};
    around_->count("words", 1);
    if (stream_)
      return stream(one, word);
    act(word);
    const auto text = word == "pid" ? std::to_string(getpid()) : word;
    one->respond({.outputs = {tensor::of_strings("OUT", {1}, std::vector{text})}});
    return {};
  }

  void finalize() override { std::ofstream{directory_ / "finalized"} << getpid(); }

private:
  static void act(const std::string& word) {
    if (word == "segv")
      crash();
    if (word == "abort")
      std::abort();
    if (word == "exit")
      std::exit(3);
    if (word == "hang")
      hang();
    if (word == "sleep")
      std::this_thread::sleep_for(std::chrono::milliseconds{1500});
    if (word == "print") {
      std::puts("on standard output");
      std::fflush(stdout);
      std::fputs("on standard error", stderr);
    }
  }

  /// Until nobody listens; "crash" after three.
  result<void> stream(const exchange_ptr& one, const std::string& word) {
    std::thread{[one, word, this] {
      for (int i = 0; one->wanted() && !(word == "three" && i == 3); ++i) {
        if (word == "crash" && i == 3)
          crash();
        one->respond({.outputs = {tensor::of_strings("OUT", {1}, std::vector{std::to_string(i)})}});
        std::this_thread::sleep_for(std::chrono::milliseconds{10});
      }
      if (!one->wanted())
        around_->count("unwanted", 1);
      one->finish();
    }}.detach();
    return {};
  }

  std::filesystem::path directory_;
  host* around_ = nullptr;
  bool stream_ = false;
};

} // namespace

TROUPE_BACKEND("fragile", fragile)
