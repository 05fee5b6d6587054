#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/text/jinja/value.hpp"

namespace troupe::engine::jinja {

struct expr;
struct stmt;
using expr_ptr = std::unique_ptr<expr>;
using stmt_ptr = std::unique_ptr<stmt>;
using body = std::vector<stmt_ptr>;

enum class expr_kind : std::uint8_t {
  constant,
  name,
  list,
  tuple,
  dict, ///< kids: key, value, key, value, ...
  negate,
  positive,
  logic_not,
  binary,
  concat,  ///< kids joined as texts
  compare, ///< kids[0] ops[0] kids[1] ops[1] kids[2] ...
  logic_and,
  logic_or,
  conditional, ///< kids: condition, then, else or null
  attribute,
  item,   ///< kids: container, index
  slice,  ///< kids: container, start, stop, step, the last three or null
  call,   ///< kids: callee
  filter, ///< kids: subject, null where a block is the subject
  test,
};

enum class operation : std::uint8_t {
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  equal,
  unequal,
  less,
  less_equal,
  greater,
  greater_equal,
  in,
  not_in,
};

struct argument {
  enum class spread_kind : std::uint8_t { none, list, dict } spread = spread_kind::none;
  std::string name; ///< Empty for a positional one.
  expr_ptr expression;
};

/// One node of an expression. `kids` and the other fields mean what `kind` says.
struct expr {
  expr_kind kind;
  std::uint32_t line;
  std::uint32_t height = 1; ///< Longest path down; bounded, so that recursion is.
  std::string name;         ///< Variable, attribute, filter or test.
  value constant;
  std::vector<operation> ops;
  std::vector<expr_ptr> kids;
  std::vector<argument> args;
  const builtin* row = nullptr; ///< Of a filter or test; null where the name is unknown.
};

enum class stmt_kind : std::uint8_t {
  data,
  print,
  branch, ///< if/elif: heads[i] guards bodies[i]; one more body is the else
  loop,   ///< heads: iterable, filter or null; bodies: body, else
  set,
  set_block,
  macro,
  call_block,   ///< heads[0] is the call
  filter_block, ///< heads[0] is the filter
  with,
  scope, ///< A body in a scope of its own: generation
  stop,  ///< break
  skip,  ///< continue
};

/// One statement. The fields mean what `kind` says.
struct stmt {
  stmt_kind kind;
  std::uint32_t line;
  std::string text; ///< Of data; the name of a macro.
  expr_ptr target;  ///< Of a loop or set: a name, tuple of targets, or attribute of a namespace.
  std::vector<expr_ptr> heads;
  std::vector<body> bodies;
  std::vector<std::string> names; ///< Parameters of a macro or call block.
  std::vector<expr_ptr> values;   ///< Defaults of the last parameters; values of with.
  std::vector<expr_ptr> targets;  ///< Of with.
  bool takes_varargs = false;     ///< The body of the macro mentions `varargs`.
  bool takes_kwargs = false;      ///< The body of the macro mentions `kwargs`.
};

} // namespace troupe::engine::jinja
