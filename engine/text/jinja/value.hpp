#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/text/jinja/meter.hpp"

namespace troupe::engine::jinja {

struct text_node;
struct list_node;
struct dict_node;
struct method_node;
struct object;
struct builtin;

using text_ptr = std::shared_ptr<const text_node>;
using list_ptr = std::shared_ptr<const list_node>;
using dict_ptr = std::shared_ptr<const dict_node>;
using method_ptr = std::shared_ptr<const method_node>;

/// A name or attribute that does not exist. `why` is said when it is used for more than a test.
struct undefined {
  std::shared_ptr<const std::string> why;
};

struct none {};

/// A value of a template, with Python's types. Texts, lists and dicts are immutable, as in the
/// sandbox that transformers renders in, so values are shared and never form a cycle; only
/// objects (namespaces, macros, loops) change, and these belong to the rendering, not to values.
struct value {
  std::variant<undefined, none, bool, std::int64_t, double, text_ptr, list_ptr, dict_ptr, object*,
               const builtin*, method_ptr>
      data;

  template <class T>
  [[nodiscard]] const T* get() const noexcept {
    return std::get_if<T>(&data);
  }
  template <class T>
  [[nodiscard]] bool is() const noexcept {
    return std::holds_alternative<T>(data);
  }

  [[nodiscard]] bool is_undefined() const noexcept { return is<undefined>(); }
  [[nodiscard]] bool is_none() const noexcept { return is<none>(); }
  /// The text, list, dict or object in it; null where it is something else.
  [[nodiscard]] const std::string* text() const noexcept;
  [[nodiscard]] const list_node* list() const noexcept;
  [[nodiscard]] const dict_node* dict() const noexcept;
  [[nodiscard]] object* obj() const noexcept;
};

struct text_node {
  std::string text;
  /// True after `safe` and `escape`: adding to it escapes the other side.
  bool markup = false;
  charge cost;

  text_node(std::string t, bool m, meter* owner)
      : text(std::move(t)), markup(m), cost(owner, text.size() + sizeof(text_node)) {}
};

/// Which of Python's iterables a list stands for: they print, compare and index differently.
enum class sequence_kind : std::uint8_t {
  list,
  tuple,
  group, ///< What groupby yields: a tuple whose two items also have names.
  range,
  view,      ///< The result of keys(), values() and items() of a dict.
  generator, ///< The result of a lazy filter such as map: neither length nor index.
};

struct list_node {
  std::vector<value> items;
  sequence_kind kind = sequence_kind::list;
  std::string label; ///< What a range, view or generator prints around or instead of its items.
  std::uint32_t depth = 1;
  charge cost;

  list_node(std::vector<value> i, sequence_kind k, std::string l, meter* owner);
};

struct dict_node {
  std::vector<std::pair<value, value>> entries; ///< In order of insertion, keys distinct.
  std::uint32_t depth = 1;
  charge cost;

  dict_node(std::vector<std::pair<value, value>> e, meter* owner);
  /// The value of `key`, or null. Keys are scalars and texts; 1, 1.0 and True are one key.
  [[nodiscard]] const value* find(const value& key) const noexcept;
  [[nodiscard]] const value* find(std::string_view key) const noexcept;
};

/// A method with the value that it was taken from, e.g. `d.items` before its call.
struct method_node {
  value self;
  const builtin* row;
};

/// What a rendering owns and a value only points to.
enum class object_kind : std::uint8_t { name_space, macro, loop, cycler, joiner };
struct object {
  object_kind kind;
  explicit object(object_kind k) : kind(k) {}
  virtual ~object() = default;
};

/// The mutable record of `namespace()`.
struct name_space : object {
  std::vector<std::pair<std::string, value>> fields;

  name_space() : object(object_kind::name_space) {}
  [[nodiscard]] const value* find(std::string_view name) const noexcept;
  void set(std::string_view name, value v);
};

/// The state of `cycler(...)` and `joiner(sep)`.
struct turn_taker : object {
  std::vector<value> items;
  std::size_t turn = 0;
  explicit turn_taker(object_kind k) : object(k) {}
};

[[nodiscard]] inline value make_bool(bool b) { return {b}; }
[[nodiscard]] inline value make_int(std::int64_t i) { return {i}; }
[[nodiscard]] inline value make_none() { return {none{}}; }
[[nodiscard]] value make_undefined(std::string why);
/// A text that no meter pays for: the literals of a template.
[[nodiscard]] value make_literal(std::string text);

/// Make metered values. @errors limit_exceeded: length, depth or memory
[[nodiscard]] result<value> make_text(meter& m, std::string text, bool markup = false);
[[nodiscard]] result<value> make_list(meter& m, std::vector<value> items,
                                      sequence_kind kind = sequence_kind::list,
                                      std::string label = {});
[[nodiscard]] result<value> make_dict(meter& m, std::vector<std::pair<value, value>> entries);

/// Python's name of the type, for messages: "str", "int", "dict", "NoneType", ...
[[nodiscard]] std::string_view type_name(const value& v) noexcept;
/// Python's truth of a value.
[[nodiscard]] bool truthy(const value& v) noexcept;
/// True where `v` may be the key of a dict here: scalars and texts.
[[nodiscard]] bool hashable(const value& v) noexcept;
/// The value as an integer where it is an int or a bool, as Python's operators take it.
[[nodiscard]] const std::int64_t* as_integer(const value& v, std::int64_t& storage) noexcept;

} // namespace troupe::engine::jinja
