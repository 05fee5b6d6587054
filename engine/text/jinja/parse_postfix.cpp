#include <charconv>

#include <fmt/format.h>

#include "engine/text/jinja/builtin.hpp"
#include "engine/text/jinja/parser.hpp"

namespace troupe::engine::jinja {

result<expr_ptr> parser::postfix(expr_ptr subject) {
  result<expr_ptr> node = std::move(subject);
  while (node) {
    if (sees("."))
      node = attribute(std::move(*node));
    else if (sees("["))
      node = subscript(std::move(*node));
    else if (sees("("))
      node = call(std::move(*node));
    else
      break;
  }
  return node;
}

result<expr_ptr> parser::filters_and_tests(expr_ptr subject) {
  result<expr_ptr> node = std::move(subject);
  while (node) {
    if (sees("|"))
      node = filter(std::move(*node));
    else if (sees_name("is"))
      node = test(std::move(*node));
    else if (sees("("))
      node = call(std::move(*node));
    else
      break;
  }
  return node;
}

result<expr_ptr> parser::attribute(expr_ptr subject) {
  auto node = make(expr_kind::attribute);
  next();
  if (now().kind == token_kind::name) {
    node->name = now().text;
    next();
    node->kids.push_back(std::move(subject));
    return done(std::move(node));
  }
  if (now().kind != token_kind::integer)
    return broken("a name or a number must follow '.'");
  node->kind = expr_kind::item;
  auto index = primary();
  if (!index)
    return index;
  node->kids.push_back(std::move(subject));
  node->kids.push_back(std::move(*index));
  return done(std::move(node));
}

result<expr_ptr> parser::subscript(expr_ptr subject) {
  auto node = make(expr_kind::item);
  next();
  node->kids.push_back(std::move(subject));
  std::size_t colons = 0;
  std::vector<expr_ptr> parts(3);
  while (!sees("]")) {
    if (skip(":")) {
      if (++colons > 2)
        return unexpected();
      continue;
    }
    if (parts[colons])
      return sees(",") ? broken("a subscript takes one index or slice") : unexpected();
    auto part = expression();
    if (!part)
      return part;
    parts[colons] = std::move(*part);
  }
  next();
  if (colons == 0 && !parts[0])
    return broken("a subscript needs an index");
  node->kind = colons > 0 ? expr_kind::slice : expr_kind::item;
  for (std::size_t i = 0; i < (colons > 0 ? 3u : 1u); ++i)
    node->kids.push_back(std::move(parts[i]));
  return done(std::move(node));
}

result<expr_ptr> parser::call(expr_ptr subject) {
  auto node = make(expr_kind::call);
  node->kids.push_back(std::move(subject));
  if (auto ok = call_args(*node); !ok)
    return fail(ok.error());
  return done(std::move(node));
}

result<void> parser::call_args(expr& into) {
  next();
  while (!sees(")")) {
    if (auto ok = one_arg(into); !ok)
      return ok;
    if (!skip(","))
      break;
  }
  return expect(")");
}

result<void> parser::one_arg(expr& into) {
  argument arg;
  if (skip("**")) {
    arg.spread = argument::spread_kind::dict;
  } else if (skip("*")) {
    arg.spread = argument::spread_kind::list;
  } else if (now().kind == token_kind::name && ahead().kind == token_kind::symbol &&
             ahead().text == "=") {
    arg.name = now().text;
    next();
    next();
  }
  const bool after_named =
      !into.args.empty() &&
      (!into.args.back().name.empty() || into.args.back().spread == argument::spread_kind::dict);
  if (after_named && arg.name.empty() && arg.spread == argument::spread_kind::none)
    return broken("a positional argument follows a named one");
  auto e = expression();
  if (!e)
    return fail(e.error());
  arg.expression = std::move(*e);
  into.args.push_back(std::move(arg));
  return {};
}

result<std::string> parser::dotted_name() {
  auto name = expect_name();
  while (name && skip(".")) {
    auto part = expect_name();
    if (!part)
      return part;
    *name += '.' + *part;
  }
  return name;
}

result<expr_ptr> parser::filter(expr_ptr subject) {
  next();
  auto node = make(expr_kind::filter);
  auto name = dotted_name();
  if (!name)
    return fail(name.error());
  node->name = std::move(*name);
  node->row = find_filter(node->name);
  if (!node->row && conditions_ == 0)
    return fail(errc::unsupported,
                located(name_, node->line, fmt::format("no filter named '{}'", node->name)));
  node->kids.push_back(std::move(subject));
  if (sees("("))
    if (auto ok = call_args(*node); !ok)
      return fail(ok.error());
  return done(std::move(node));
}

result<expr_ptr> parser::filter_chain(expr_ptr subject) {
  result<expr_ptr> node = std::move(subject);
  while (node && sees("|"))
    node = filter(std::move(*node));
  return node;
}

result<expr_ptr> parser::test(expr_ptr subject) {
  next();
  auto node = make(expr_kind::test);
  const bool negated = skip_name("not");
  auto name = dotted_name();
  if (!name)
    return fail(name.error());
  node->name = std::move(*name);
  node->row = find_test(node->name);
  if (!node->row && conditions_ == 0)
    return fail(errc::unsupported,
                located(name_, node->line, fmt::format("no test named '{}'", node->name)));
  node->kids.push_back(std::move(subject));
  const auto kind = now().kind;
  const bool has_value =
      kind == token_kind::text || kind == token_kind::integer || kind == token_kind::floating ||
      sees("[") || sees("{") ||
      (kind == token_kind::name && !sees_name("else") && !sees_name("or") && !sees_name("and") &&
       !sees_name("if") && !sees_name("in") && !sees_name("not"));
  if (sees("(")) {
    if (auto ok = call_args(*node); !ok)
      return fail(ok.error());
  } else if (sees_name("is")) {
    return broken("tests cannot be chained with is");
  } else if (has_value) {
    auto arg = primary();
    if (arg)
      arg = postfix(std::move(*arg));
    if (!arg)
      return arg;
    node->args.push_back({argument::spread_kind::none, "", std::move(*arg)});
  }
  if (!negated)
    return done(std::move(node));
  auto inverse = make(expr_kind::logic_not);
  inverse->height = node->height + 1;
  auto inner = done(std::move(node));
  if (!inner)
    return inner;
  inverse->kids.push_back(std::move(*inner));
  return done(std::move(inverse));
}

} // namespace troupe::engine::jinja
