// A backend that does what its model's parameter "mode" says, so that tests see how it is borne.

#include <troupe/actors/backend_api.hpp>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <stdexcept>
#include <thread>

namespace {

using namespace troupe::backends;
using troupe::errc;
using troupe::fail;
using troupe::result;

class odd : public backend {
public:
  odd() {
#ifdef ODD_CONSTRUCTOR_THROWS
    throw std::runtime_error{"the constructor is odd"};
#endif
  }

  result<void> auto_complete_config(const model_facts& model, declarations& wanted) override {
    mode_ = model.parameter("mode");
    if (mode_ == "throw an int in auto_complete")
      throw 7;
    if (mode_ == "throw in auto_complete")
      throw std::runtime_error{"auto_complete is odd"};
    wanted.inputs = {{"IN", datatype::bytes, {-1}}, {"N", datatype::int32, {1}, true}};
    wanted.outputs = {{"OUT", datatype::bytes, {-1}}, {"COUNT", datatype::int32, {1}}};
    wanted.max_batch_size = mode_.starts_with("batch") ? 4 : 0;
    wanted.dynamic_batching = mode_ == "batch by itself";
    wanted.decoupled = mode_ == "repeat";
    return {};
  }

  result<void> initialize(const model_facts& model, host& around) override {
    mode_ = model.parameter("mode");
    instance_ = model.instance;
    directory_ = model.directory;
    around_ = &around;
    if (mode_ == "fail in initialize")
      return fail(errc::not_found, "there is nothing to load");
    around.measure("instances", 1);
    around.log(log_severity::warning, "two\nlines");
    return {};
  }

  result<void> execute(std::span<const exchange_ptr> requests) override {
    if (mode_ == "die")
      std::raise(SIGKILL);
    if (mode_.starts_with("batch"))
      return batch(requests);
    const auto& one = requests.front();
    const auto word = std::string{one->input().find("IN")->strings().at(0)};
    if (word == "throw")
      throw std::runtime_error{"execute is odd"};
    if (word == "throw an int")
      throw 7;
    if (word == "false")
      return fail(errc::unsupported, "not this word");
    if (word == "silence")
      return {};
    if (word == "sleep")
      std::this_thread::sleep_for(std::chrono::milliseconds{400});
    if (word == "wrong name")
      one->respond({.outputs = {tensor::of_strings("OTHER", {1}, std::vector{word})}});
    if (word == "wrong type")
      one->respond({.outputs = {tensor::of<float>("OUT", datatype::fp32, {1}, std::vector{1.F})}});
    if (word == "wrong shape")
      one->respond({.outputs = {tensor::of_strings("OUT", {3}, std::vector{word})}});
    if (mode_ == "repeat")
      return repeat(one, word);
    const std::vector<std::int32_t> number{static_cast<std::int32_t>(instance_)};
    if (word == "bytes") {
      around_->count("odd \xff\xfe name", 1);
      around_->count(std::string(63, 'n') + "\xc3\xa9", 1);
      one->respond({.outputs = {tensor::of_strings("OUT", {1}, std::vector{word})},
                    .parameters = {{"odd \xff", "\xfe is no text"}}});
    }
    one->respond({.outputs = {tensor::of_strings("OUT", one->input().find("IN")->shape,
                                                 one->input().find("IN")->strings()),
                              tensor::of<std::int32_t>("COUNT", datatype::int32, {1}, number)},
                  .parameters = {{"mode", mode_}}});
    one->respond({.outputs = {}});
    return {};
  }

  void finalize() override {
    if (mode_ == "throw in finalize")
      throw std::runtime_error{"finalize is odd"};
  }

private:
  /// Says with each answer how many requests came together.
  result<void> batch(std::span<const exchange_ptr> requests) {
    around_->count("begun", 1);
    for (const auto& one : requests) {
      const auto word = one->input().find("IN")->strings().at(0);
      if (word == "sleep")
        std::this_thread::sleep_for(std::chrono::milliseconds{400});
      while (word == "hold" && !std::filesystem::exists(directory_ / "go"))
        std::this_thread::sleep_for(std::chrono::milliseconds{5});
      if (word == "throw")
        throw std::runtime_error{"the batch is odd"};
    }
    for (const auto& one : requests) {
      const auto& in = *one->input().find("IN");
      if (in.strings().at(0) == "refuse") {
        one->fail({errc::invalid_argument, "not this one"});
        continue;
      }
      const std::vector<std::int32_t> number(static_cast<std::size_t>(in.shape.at(0)),
                                             static_cast<std::int32_t>(requests.size()));
      one->respond({.outputs = {tensor::of_strings("OUT", in.shape, in.strings()),
                                tensor::of<std::int32_t>("COUNT", datatype::int32,
                                                         {in.shape.at(0), 1}, number)}});
    }
    return {};
  }

  /// N responses from another thread, then the end, "late end" some time after; "never" lets go
  /// without one.
  static result<void> repeat(const exchange_ptr& one, const std::string& word) {
    const auto* n = one->input().find("N");
    const auto times = n == nullptr ? 1 : n->as<std::int32_t>()[0];
    std::thread{[one, word, times] {
      for (std::int32_t i = 0; i < times && one->wanted(); ++i)
        one->respond(
            {.outputs = {tensor::of_strings("OUT", {1}, std::vector{word}),
                         tensor::of<std::int32_t>("COUNT", datatype::int32, {1}, std::vector{i})}});
      if (word == "late end")
        std::this_thread::sleep_for(std::chrono::milliseconds{400});
      if (word != "never")
        one->finish();
    }}.detach();
    return {};
  }

  std::string mode_;
  std::filesystem::path directory_;
  host* around_ = nullptr;
  std::uint32_t instance_ = 0;
};

} // namespace

TROUPE_BACKEND("odd", odd)
