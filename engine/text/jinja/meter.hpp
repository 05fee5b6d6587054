#pragma once

#include <cstddef>
#include <cstdint>

#include "troupe/base/error.hpp"

namespace troupe::engine::jinja {

/// What one template may cost. The defaults are far above what the templates of published models
/// need, and low enough that a hostile one ends within about a second.
struct limits {
  /// Evaluated nodes of a rendering; long texts and lists count by their size as well.
  std::uint64_t steps_max = 10'000'000;
  /// Nested evaluations (expressions, statements, macro calls together) of a rendering.
  std::uint32_t depth_max = 400;
  /// Nested syntax of a template, counted while parsing.
  std::uint32_t syntax_depth_max = 100;
  /// Lists within lists (or dicts) of one value, those of the input included.
  std::uint32_t value_depth_max = 128;
  /// One text, the output included.
  std::size_t text_bytes_max = 32u << 20;
  /// All values and texts alive at the same time, the input included.
  std::size_t live_bytes_max = 256u << 20;
  /// Source text of a template.
  std::size_t source_bytes_max = 1u << 20;
};

/// Counts what one rendering spends. Not thread-safe: every rendering has its own.
class meter {
public:
  explicit meter(const limits& l) : limits_(l) {}
  meter(const meter&) = delete;
  meter& operator=(const meter&) = delete;

  /// Counts `steps` of work. @errors limit_exceeded
  [[nodiscard]] result<void> spend(std::uint64_t steps) {
    steps_ += steps;
    if (steps_ > limits_.steps_max)
      return fail(errc::limit_exceeded, "the template takes more steps than allowed");
    return {};
  }

  /// Asks whether a text of `bytes` may be made, and counts the work of making it.
  /// @errors limit_exceeded
  [[nodiscard]] result<void> room(std::size_t bytes) {
    if (bytes > limits_.text_bytes_max)
      return fail(errc::limit_exceeded, "the template makes a longer text than allowed");
    if (bytes > limits_.live_bytes_max || live_bytes_ > limits_.live_bytes_max - bytes)
      return fail(errc::limit_exceeded, "the template needs more memory than allowed");
    return spend(bytes / bytes_per_step);
  }

  void take(std::size_t bytes) noexcept { live_bytes_ += bytes; }
  void give(std::size_t bytes) noexcept { live_bytes_ -= bytes; }

  [[nodiscard]] const limits& bounds() const noexcept { return limits_; }
  [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }
  [[nodiscard]] std::size_t live_bytes() const noexcept { return live_bytes_; }

private:
  static constexpr std::size_t bytes_per_step = 512;

  limits limits_;
  std::uint64_t steps_ = 0;
  std::size_t live_bytes_ = 0;
};

/// Holds bytes of a meter for as long as the value that they belong to.
class charge {
public:
  charge() = default;
  charge(meter* owner, std::size_t bytes) noexcept : owner_(owner), bytes_(bytes) {
    if (owner_)
      owner_->take(bytes_);
  }
  charge(const charge&) = delete;
  charge& operator=(const charge&) = delete;
  ~charge() {
    if (owner_)
      owner_->give(bytes_);
  }

private:
  meter* owner_ = nullptr;
  std::size_t bytes_ = 0;
};

} // namespace troupe::engine::jinja
