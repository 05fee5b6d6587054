#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "engine/text/jinja/builtin.hpp"
#include "engine/text/jinja/parser.hpp"

namespace troupe::engine::jinja {

namespace {

struct symbol_row {
  std::string_view symbol;
  operation op;
};

constexpr symbol_row comparisons[] = {{"==", operation::equal},  {"!=", operation::unequal},
                                      {"<", operation::less},    {"<=", operation::less_equal},
                                      {">", operation::greater}, {">=", operation::greater_equal}};
constexpr symbol_row sums[] = {{"+", operation::add}, {"-", operation::subtract}};
constexpr symbol_row products[] = {{"*", operation::multiply},
                                   {"/", operation::divide},
                                   {"//", operation::floor_divide},
                                   {"%", operation::modulo}};

template <std::size_t N>
const symbol_row* find_symbol(const symbol_row (&rows)[N], const token& t) {
  if (t.kind != token_kind::symbol)
    return nullptr;
  const auto* row = std::find_if(rows, rows + N, [&](const auto& r) { return r.symbol == t.text; });
  return row == rows + N ? nullptr : row;
}

} // namespace

expr_ptr parser::make(expr_kind kind) const {
  auto e = std::make_unique<expr>();
  e->kind = kind;
  e->line = now().line;
  return e;
}

result<expr_ptr> parser::done(expr_ptr e) const {
  for (const auto& kid : e->kids)
    e->height = std::max(e->height, kid ? kid->height + 1 : 1);
  for (const auto& arg : e->args)
    e->height = std::max(e->height, arg.expression->height + 1);
  if (e->height > limits_.syntax_depth_max)
    return fail(errc::limit_exceeded, located(name_, e->line, "an expression is nested too deep"));
  return e;
}

result<expr_ptr> parser::tuple(tuple_mode mode) {
  auto node = make(expr_kind::tuple);
  bool comma = false;
  while (true) {
    const auto kind = now().kind;
    const bool ends = kind == token_kind::block_end || kind == token_kind::variable_end ||
                      sees(")") || sees("]") || sees("=") || sees("|") || sees_name("recursive");
    if (ends)
      break;
    auto item = mode == tuple_mode::full ? expression() : logic(expr_kind::logic_or);
    if (!item)
      return item;
    node->kids.push_back(std::move(*item));
    if (!skip(","))
      break;
    comma = true;
  }
  if (node->kids.empty())
    return unexpected();
  if (!comma)
    return std::move(node->kids[0]);
  return done(std::move(node));
}

result<expr_ptr> parser::expression() {
  const nest guard(depth_);
  if (auto ok = too_deep(); !ok)
    return fail(ok.error());
  auto left = logic(expr_kind::logic_or);
  while (left && sees_name("if")) {
    auto node = make(expr_kind::conditional);
    next();
    // Jinja lets unknown filters pass anywhere inside a conditional.
    ++conditions_;
    auto condition = logic(expr_kind::logic_or);
    result<expr_ptr> otherwise = expr_ptr{};
    if (condition && skip_name("else"))
      otherwise = expression();
    --conditions_;
    if (!condition)
      return condition;
    if (!otherwise)
      return otherwise;
    node->kids.push_back(std::move(*condition));
    node->kids.push_back(std::move(*left));
    node->kids.push_back(std::move(*otherwise));
    left = done(std::move(node));
  }
  return left;
}

result<expr_ptr> parser::logic(expr_kind kind) {
  const bool is_or = kind == expr_kind::logic_or;
  const std::string_view word = is_or ? "or" : "and";
  auto first = is_or ? logic(expr_kind::logic_and) : negation();
  if (!first || !sees_name(word))
    return first;
  auto node = make(kind);
  node->kids.push_back(std::move(*first));
  while (skip_name(word)) {
    auto next_kid = is_or ? logic(expr_kind::logic_and) : negation();
    if (!next_kid)
      return next_kid;
    node->kids.push_back(std::move(*next_kid));
  }
  return done(std::move(node));
}

result<expr_ptr> parser::negation() {
  if (!sees_name("not"))
    return comparison();
  const nest guard(depth_);
  if (auto ok = too_deep(); !ok)
    return fail(ok.error());
  auto node = make(expr_kind::logic_not);
  next();
  auto inner = negation();
  if (!inner)
    return inner;
  node->kids.push_back(std::move(*inner));
  return done(std::move(node));
}

result<expr_ptr> parser::comparison() {
  auto first = sum();
  if (!first)
    return first;
  auto node = make(expr_kind::compare);
  node->kids.push_back(std::move(*first));
  while (true) {
    if (const auto* row = find_symbol(comparisons, now()))
      node->ops.push_back(row->op);
    else if (sees_name("in"))
      node->ops.push_back(operation::in);
    else if (sees_name("not") && ahead().kind == token_kind::name && ahead().text == "in")
      node->ops.push_back(operation::not_in);
    else
      break;
    if (node->ops.back() == operation::not_in)
      next();
    next();
    auto right = sum();
    if (!right)
      return right;
    node->kids.push_back(std::move(*right));
  }
  if (node->ops.empty())
    return std::move(node->kids[0]);
  return done(std::move(node));
}

result<expr_ptr> parser::sum() {
  auto left = concatenation();
  while (left) {
    const auto* row = find_symbol(sums, now());
    if (!row)
      break;
    auto node = make(expr_kind::binary);
    node->ops.push_back(row->op);
    next();
    auto right = concatenation();
    if (!right)
      return right;
    node->kids.push_back(std::move(*left));
    node->kids.push_back(std::move(*right));
    left = done(std::move(node));
  }
  return left;
}

result<expr_ptr> parser::concatenation() {
  auto first = product();
  if (!first || !sees("~"))
    return first;
  auto node = make(expr_kind::concat);
  node->kids.push_back(std::move(*first));
  while (skip("~")) {
    auto right = product();
    if (!right)
      return right;
    node->kids.push_back(std::move(*right));
  }
  return done(std::move(node));
}

result<expr_ptr> parser::product() {
  auto left = power();
  while (left) {
    const auto* row = find_symbol(products, now());
    if (!row)
      break;
    auto node = make(expr_kind::binary);
    node->ops.push_back(row->op);
    next();
    auto right = power();
    if (!right)
      return right;
    node->kids.push_back(std::move(*left));
    node->kids.push_back(std::move(*right));
    left = done(std::move(node));
  }
  return left;
}

result<expr_ptr> parser::power() {
  auto left = unary(true);
  while (left && sees("**")) {
    auto node = make(expr_kind::binary);
    node->ops.push_back(operation::power);
    next();
    auto right = unary(true);
    if (!right)
      return right;
    node->kids.push_back(std::move(*left));
    node->kids.push_back(std::move(*right));
    left = done(std::move(node));
  }
  return left;
}

result<expr_ptr> parser::unary(bool filters) {
  const nest guard(depth_);
  if (auto ok = too_deep(); !ok)
    return fail(ok.error());
  result<expr_ptr> node = expr_ptr{};
  if (sees("-") || sees("+")) {
    auto sign = make(sees("-") ? expr_kind::negate : expr_kind::positive);
    next();
    auto inner = unary(false);
    if (!inner)
      return inner;
    sign->kids.push_back(std::move(*inner));
    node = done(std::move(sign));
  } else {
    node = primary();
  }
  if (node)
    node = postfix(std::move(*node));
  if (node && filters)
    node = filters_and_tests(std::move(*node));
  return node;
}

result<expr_ptr> parser::primary() {
  auto node = make(expr_kind::constant);
  const std::string text = now().text;
  switch (now().kind) {
  case token_kind::name:
    return named_primary();
  case token_kind::text: {
    std::string joined;
    for (; now().kind == token_kind::text; next())
      joined += now().text;
    node->constant = make_literal(std::move(joined));
    return node;
  }
  case token_kind::integer: {
    std::int64_t n = 0;
    std::from_chars(text.data(), text.data() + text.size(), n);
    node->constant = make_int(n);
    next();
    return node;
  }
  case token_kind::floating: {
    double d = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), d);
    if (read.ec == std::errc::result_out_of_range)
      return broken("a number that does not fit a double");
    node->constant = value{d};
    next();
    return node;
  }
  default:
    break;
  }
  if (sees("("))
    return parenthesised();
  if (sees("["))
    return list_literal();
  if (sees("{"))
    return dict_literal();
  return unexpected();
}

result<expr_ptr> parser::named_primary() {
  auto node = make(expr_kind::constant);
  const std::string& word = now().text;
  if (word == "true" || word == "True") {
    node->constant = make_bool(true);
  } else if (word == "false" || word == "False") {
    node->constant = make_bool(false);
  } else if (word == "none" || word == "None") {
    node->constant = make_none();
  } else {
    node->kind = expr_kind::name;
    node->name = word;
    mentions_varargs_ = mentions_varargs_ || word == "varargs";
    mentions_kwargs_ = mentions_kwargs_ || word == "kwargs";
  }
  next();
  return node;
}

result<expr_ptr> parser::parenthesised() {
  auto empty = make(expr_kind::tuple);
  next();
  if (skip(")"))
    return empty;
  auto inner = tuple(tuple_mode::full);
  if (!inner)
    return inner;
  if (auto ok = expect(")"); !ok)
    return fail(ok.error());
  return inner;
}

result<expr_ptr> parser::list_literal() {
  auto node = make(expr_kind::list);
  next();
  while (!sees("]")) {
    auto item = expression();
    if (!item)
      return item;
    node->kids.push_back(std::move(*item));
    if (!skip(","))
      break;
  }
  if (auto ok = expect("]"); !ok)
    return fail(ok.error());
  return done(std::move(node));
}

result<expr_ptr> parser::dict_literal() {
  auto node = make(expr_kind::dict);
  next();
  while (!sees("}")) {
    auto key = expression();
    if (!key)
      return key;
    if (auto ok = expect(":"); !ok)
      return fail(ok.error());
    auto item = expression();
    if (!item)
      return item;
    node->kids.push_back(std::move(*key));
    node->kids.push_back(std::move(*item));
    if (!skip(","))
      break;
  }
  if (auto ok = expect("}"); !ok)
    return fail(ok.error());
  return done(std::move(node));
}

} // namespace troupe::engine::jinja
