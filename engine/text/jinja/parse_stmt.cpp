#include <algorithm>

#include <fmt/format.h>

#include "engine/text/jinja/parser.hpp"

namespace troupe::engine::jinja {

namespace {

stmt_ptr make_stmt(stmt_kind kind, std::uint32_t line) {
  auto s = std::make_unique<stmt>();
  s->kind = kind;
  s->line = line;
  return s;
}

} // namespace

bool parser::sees(std::string_view symbol) const {
  return now().kind == token_kind::symbol && now().text == symbol;
}

bool parser::sees_name(std::string_view name) const {
  return now().kind == token_kind::name && now().text == name;
}

bool parser::skip(std::string_view symbol) {
  const bool seen = sees(symbol);
  if (seen)
    next();
  return seen;
}

bool parser::skip_name(std::string_view name) {
  const bool seen = sees_name(name);
  if (seen)
    next();
  return seen;
}

tl::unexpected<error> parser::broken(std::string_view what) const {
  return fail(errc::corrupt_data, located(name_, now().line, what));
}

tl::unexpected<error> parser::unexpected() const {
  switch (now().kind) {
  case token_kind::end:
    return broken("unexpected end of template");
  case token_kind::block_end:
  case token_kind::variable_end:
    return broken("unexpected end of tag");
  case token_kind::data:
  case token_kind::variable_begin:
  case token_kind::block_begin:
    return broken("unexpected text");
  default:
    return broken(fmt::format("unexpected '{}'", now().text));
  }
}

result<void> parser::too_deep() const {
  if (depth_ > limits_.syntax_depth_max)
    return fail(errc::limit_exceeded, located(name_, now().line, "the syntax is nested too deep"));
  return {};
}

result<void> parser::expect(std::string_view symbol) {
  if (skip(symbol))
    return {};
  auto e = unexpected();
  e.value().note += fmt::format("; '{}' is missing", symbol);
  return e;
}

result<void> parser::expect_block_end() {
  if (now().kind != token_kind::block_end)
    return unexpected();
  next();
  return {};
}

result<std::string> parser::expect_name() {
  if (now().kind != token_kind::name)
    return unexpected();
  auto name = now().text;
  next();
  return name;
}

result<body> parser::statements(std::initializer_list<std::string_view> ends) {
  const nest guard(depth_);
  if (auto ok = too_deep(); !ok)
    return fail(ok.error());
  body out;
  while (now().kind != token_kind::end) {
    const auto kind = now().kind;
    const auto line = now().line;
    auto s = make_stmt(stmt_kind::data, line);
    if (kind == token_kind::data)
      s->text = now().text;
    next();
    result<stmt_ptr> made = std::move(s);
    if (kind == token_kind::variable_begin)
      made = print_rest(line);
    if (kind == token_kind::block_begin) {
      const bool end = now().kind == token_kind::name &&
                       std::find(ends.begin(), ends.end(), now().text) != ends.end();
      if (end)
        return out;
      made = statement();
    }
    if (!made)
      return fail(made.error());
    out.push_back(std::move(*made));
  }
  if (ends.size() == 0)
    return out;
  return broken(fmt::format("unexpected end of template: {} is missing", *std::prev(ends.end())));
}

result<stmt_ptr> parser::print_rest(std::uint32_t line) {
  auto s = make_stmt(stmt_kind::print, line);
  auto e = tuple(tuple_mode::full);
  if (!e)
    return fail(e.error());
  s->heads.push_back(std::move(*e));
  if (now().kind != token_kind::variable_end)
    return unexpected();
  next();
  return s;
}

result<stmt_ptr> parser::print_tag(std::uint32_t line) {
  auto s = make_stmt(stmt_kind::print, line);
  do {
    auto e = expression();
    if (!e)
      return fail(e.error());
    s->heads.push_back(std::move(*e));
  } while (skip(","));
  if (auto ok = expect_block_end(); !ok)
    return fail(ok.error());
  return s;
}

result<stmt_ptr> parser::statement() {
  struct row {
    std::string_view tag;
    result<stmt_ptr> (parser::*parse)(std::uint32_t);
  };
  static constexpr row rows[] = {{"if", &parser::branch},
                                 {"for", &parser::loop},
                                 {"set", &parser::set},
                                 {"macro", &parser::macro},
                                 {"call", &parser::call_block},
                                 {"filter", &parser::filter_block},
                                 {"with", &parser::with},
                                 {"generation", &parser::generation},
                                 {"print", &parser::print_tag},
                                 {"break", &parser::interrupt},
                                 {"continue", &parser::interrupt},
                                 {"include", &parser::refused},
                                 {"import", &parser::refused},
                                 {"from", &parser::refused},
                                 {"extends", &parser::refused},
                                 {"block", &parser::refused},
                                 {"autoescape", &parser::refused}};
  if (now().kind != token_kind::name)
    return broken("a tag needs a name");
  const auto line = now().line;
  for (const auto& r : rows) {
    if (r.tag != now().text)
      continue;
    if (r.parse != &parser::interrupt && r.parse != &parser::refused)
      next();
    return (this->*r.parse)(line);
  }
  return broken(fmt::format("unknown or misplaced tag '{}'", now().text));
}

result<void> parser::block_body(stmt& s, std::string_view end) {
  if (auto ok = expect_block_end(); !ok)
    return ok;
  auto inner = statements({end});
  if (!inner)
    return fail(inner.error());
  s.bodies.push_back(std::move(*inner));
  next();
  return expect_block_end();
}

result<stmt_ptr> parser::branch(std::uint32_t line) {
  auto s = make_stmt(stmt_kind::branch, line);
  const nest condition(conditions_);
  while (true) {
    auto head = tuple(tuple_mode::no_condition);
    if (!head)
      return fail(head.error());
    s->heads.push_back(std::move(*head));
    if (auto ok = expect_block_end(); !ok)
      return fail(ok.error());
    auto inner = statements({"elif", "else", "endif"});
    if (!inner)
      return fail(inner.error());
    s->bodies.push_back(std::move(*inner));
    if (!skip_name("elif"))
      break;
  }
  if (sees_name("else")) {
    next();
    if (auto ok = block_body(*s, "endif"); !ok)
      return fail(ok.error());
    return s;
  }
  next();
  if (auto ok = expect_block_end(); !ok)
    return fail(ok.error());
  return s;
}

result<stmt_ptr> parser::loop(std::uint32_t line) {
  auto s = make_stmt(stmt_kind::loop, line);
  auto to = target(false);
  if (!to)
    return fail(to.error());
  s->target = std::move(*to);
  if (!skip_name("in"))
    return unexpected();
  auto over = tuple(tuple_mode::no_condition);
  if (!over)
    return fail(over.error());
  s->heads.push_back(std::move(*over));
  result<expr_ptr> only = expr_ptr{};
  if (skip_name("if"))
    only = expression();
  if (!only)
    return fail(only.error());
  s->heads.push_back(std::move(*only));
  if (sees_name("recursive"))
    return fail(errc::unsupported, located(name_, line, "recursive loops are not supported"));
  if (auto ok = expect_block_end(); !ok)
    return fail(ok.error());
  ++loops_;
  auto inner = statements({"endfor", "else"});
  --loops_;
  if (!inner)
    return fail(inner.error());
  s->bodies.push_back(std::move(*inner));
  const bool has_else = sees_name("else");
  next();
  auto ok = has_else ? block_body(*s, "endfor") : expect_block_end();
  if (!ok)
    return fail(ok.error());
  if (s->bodies.size() == 1)
    s->bodies.emplace_back();
  return s;
}

result<expr_ptr> parser::one_target(bool attributes) {
  auto node = make(expr_kind::name);
  if (skip("(")) {
    auto inner = target(attributes);
    if (!inner)
      return inner;
    if (auto ok = expect(")"); !ok)
      return fail(ok.error());
    return inner;
  }
  auto name = expect_name();
  if (!name)
    return fail(name.error());
  node->name = std::move(*name);
  static constexpr std::string_view constants[] = {"true", "false", "none",
                                                   "True", "False", "None"};
  if (std::find(std::begin(constants), std::end(constants), node->name) != std::end(constants))
    return broken(fmt::format("cannot assign to '{}'", node->name));
  if (!attributes || !skip("."))
    return node;
  auto field = make(expr_kind::attribute);
  name = expect_name();
  if (!name)
    return fail(name.error());
  field->name = std::move(*name);
  field->kids.push_back(std::move(node));
  return field;
}

result<expr_ptr> parser::target(bool attributes) {
  const nest guard(depth_);
  if (auto ok = too_deep(); !ok)
    return fail(ok.error());
  auto all = make(expr_kind::tuple);
  bool comma = false;
  do {
    if (comma && (sees("=") || sees(")") || sees_name("in")))
      break;
    auto one = one_target(attributes);
    if (!one)
      return one;
    all->kids.push_back(std::move(*one));
    comma = comma || sees(",");
  } while (skip(","));
  if (!comma)
    return std::move(all->kids[0]);
  return done(std::move(all));
}

} // namespace troupe::engine::jinja
