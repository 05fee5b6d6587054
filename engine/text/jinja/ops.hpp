#pragma once

#include "engine/text/jinja/ast.hpp"
#include "engine/text/jinja/builtin.hpp"

namespace troupe::engine::jinja {

// Python's operators on values. Errors are invalid_argument with a note that the evaluator
// locates, or limit_exceeded.

/// str(): what a template prints. Undefined prints nothing.
[[nodiscard]] result<std::string> to_text(runtime& rt, const value& v);
/// repr(), as inside of printed lists and dicts.
[[nodiscard]] result<std::string> repr(runtime& rt, const value& v);
/// Python's shortest text of a double that reads back as the same: 1.0, 1e+16, nan.
[[nodiscard]] std::string float_text(double d);
/// Appends `more`, refusing a text longer than allowed before it grows.
[[nodiscard]] result<void> append(runtime& rt, std::string& out, std::string_view more);

/// a == b
[[nodiscard]] result<bool> equals(runtime& rt, const value& a, const value& b);
/// a < b; both must be numbers, texts or lists.
[[nodiscard]] result<bool> less(runtime& rt, const value& a, const value& b);
/// Any comparison, `in` included.
[[nodiscard]] result<bool> compare(runtime& rt, operation op, const value& a, const value& b);
/// item in container
[[nodiscard]] result<bool> contains(runtime& rt, const value& container, const value& item);
/// Stable order of `items` by `less` of `keys`, which has as many entries.
[[nodiscard]] result<std::vector<value>> sorted(runtime& rt, const std::vector<value>& items,
                                                const std::vector<value>& keys, bool reverse);

/// + - * / // % **
[[nodiscard]] result<value> arithmetic(runtime& rt, operation op, const value& a, const value& b);
[[nodiscard]] result<value> negated(const value& v);
/// The value as a double where it is a number.
[[nodiscard]] std::optional<double> as_double(const value& v);
/// template % args, printf-like.
[[nodiscard]] result<value> percent_format(runtime& rt, std::string_view form, const value& args);

/// v.name: methods first, then keys; undefined where neither exists.
[[nodiscard]] result<value> get_attribute(runtime& rt, const value& v, std::string_view name);
/// v[key]: keys and indexes first, then methods.
[[nodiscard]] result<value> get_item(runtime& rt, const value& v, const value& key);
/// v[start:stop:step]; undefined or none stands for what was left out.
[[nodiscard]] result<value> slice(runtime& rt, const value& v, const std::array<value, 3>& bounds);
/// What a loop over `v` yields: items, characters or keys.
[[nodiscard]] result<list_ptr> iterate(runtime& rt, const value& v);
[[nodiscard]] result<std::size_t> length(const value& v);
/// The path `a.b.0` of filters such as map(attribute=...).
[[nodiscard]] result<value> get_path(runtime& rt, const value& v, const value& path);

/// The error of using a value that does not exist.
[[nodiscard]] tl::unexpected<error> undefined_error(const value& v);
[[nodiscard]] std::string escape_html(std::string_view text);

} // namespace troupe::engine::jinja
