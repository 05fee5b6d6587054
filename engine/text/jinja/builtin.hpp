#pragma once

#include <array>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <span>

#include "engine/text/jinja/value.hpp"

namespace troupe::engine::jinja {

/// What one rendering shares with the built-in functions.
struct runtime {
  explicit runtime(const limits& l) : budget(l) {}

  meter budget;
  /// The civil time that strftime_now prints.
  std::optional<std::chrono::local_seconds> now;
  /// Set by raise_exception: the note of the error is the template's own message.
  bool raised = false;
  /// Namespaces, macros and loops, which live until the rendering ends.
  std::deque<std::unique_ptr<object>> objects;

  /// Keeps `made` until the rendering ends. @errors limit_exceeded
  [[nodiscard]] result<object*> keep(std::unique_ptr<object> made);
};

/// The arguments of a call, in order.
struct arguments {
  std::vector<value> positional;
  std::vector<std::pair<std::string, value>> named;
};

/// A call of a built-in: `args[i]` is the argument of parameter i, null where it was left out.
struct call_site {
  runtime& rt;
  const value& self; ///< What a filter, test or method is applied to.
  const arguments& raw;
  std::array<const value*, 6> args{};

  /// The argument as what the built-in needs, or `otherwise` where it was left out.
  [[nodiscard]] result<std::int64_t> integer(std::size_t i, std::int64_t otherwise) const;
  [[nodiscard]] result<std::string> text(std::size_t i, std::string_view otherwise) const;
  [[nodiscard]] bool flag(std::size_t i, bool otherwise) const;
};

/// One row of the tables of filters, tests, methods and functions.
struct builtin {
  std::string_view name;
  /// Names of the parameters, separated by spaces; "*" takes any arguments, through `raw`.
  std::string_view params;
  std::size_t required;
  result<value> (*run)(const call_site&);
};

/// Binds the arguments to the parameters of `row` and runs it.
/// @errors invalid_argument: too many, too few, unknown or doubled arguments; and the row's own
[[nodiscard]] result<value> invoke(runtime& rt, const builtin& row, const value& self,
                                   const arguments& args);

/// The row of that name, or null.
[[nodiscard]] const builtin* find_row(std::span<const builtin> table, std::string_view name);
[[nodiscard]] const builtin* find_filter(std::string_view name);
[[nodiscard]] const builtin* find_test(std::string_view name);
[[nodiscard]] const builtin* find_function(std::string_view name);
/// The method `name` of the type of `self`, or null.
[[nodiscard]] const builtin* find_method(const value& self, std::string_view name);

/// The tables that the four above search, one file each.
[[nodiscard]] std::span<const builtin> text_filters();
[[nodiscard]] std::span<const builtin> list_filters();
[[nodiscard]] std::span<const builtin> pick_filters();
[[nodiscard]] std::span<const builtin> number_filters();
[[nodiscard]] std::span<const builtin> test_rows();
[[nodiscard]] std::span<const builtin> function_rows();
[[nodiscard]] std::span<const builtin> text_methods();
[[nodiscard]] std::span<const builtin> container_methods(const value& self);

/// An error of a template while it renders, for the evaluator to locate.
[[nodiscard]] tl::unexpected<error> wrong(std::string note);

} // namespace troupe::engine::jinja
