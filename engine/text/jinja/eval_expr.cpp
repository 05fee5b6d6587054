#include <fmt/format.h>

#include "engine/text/jinja/evaluator.hpp"
#include "engine/text/jinja/lexer.hpp"

namespace troupe::engine::jinja {

scope* evaluator::push(scope* parent) {
  scope* s = nullptr;
  if (free_scopes_.empty()) {
    s = &scopes_.emplace_back();
  } else {
    s = free_scopes_.back();
    free_scopes_.pop_back();
  }
  s->parent = parent;
  return s;
}

void evaluator::pop(scope* s) {
  if (s->captured)
    return;
  s->vars.clear();
  free_scopes_.push_back(s);
}

result<void> evaluator::enter(std::uint32_t line) {
  if (auto ok = rt_.budget.spend(1); !ok)
    return at(line, ok.error());
  if (depth_ > rt_.budget.bounds().depth_max)
    return at(line, {errc::limit_exceeded, "the template nests its calls deeper than allowed"});
  return {};
}

tl::unexpected<error> evaluator::at(std::uint32_t line, error e) const {
  if (!rt_.raised)
    e.note = located(name_, line, e.note);
  return fail(std::move(e));
}

result<value> evaluator::eval(const expr& e, scope& s) {
  const entered level(*this);
  if (auto ok = enter(e.line); !ok)
    return fail(ok.error());
  return eval_any(e, s);
}

result<value> evaluator::eval_any(const expr& e, scope& s) {
  switch (e.kind) {
  case expr_kind::constant:
    return e.constant;
  case expr_kind::name:
    return eval_name(e, s);
  case expr_kind::list:
  case expr_kind::tuple:
    return eval_items(e, s);
  case expr_kind::dict:
    return eval_dict(e, s);
  case expr_kind::binary:
    return eval_binary(e, s);
  case expr_kind::concat:
    return eval_concat(e, s);
  case expr_kind::compare:
    return eval_compare(e, s);
  case expr_kind::logic_and:
  case expr_kind::logic_or:
    return eval_logic(e, s);
  case expr_kind::conditional:
    return eval_conditional(e, s);
  case expr_kind::attribute:
  case expr_kind::item:
    return eval_access(e, s);
  case expr_kind::slice:
    return eval_slice(e, s);
  case expr_kind::call:
    return eval_call(e, s, nullptr);
  case expr_kind::filter:
    return eval_filter(e, s, nullptr);
  case expr_kind::test:
    return eval_test(e, s);
  case expr_kind::negate:
  case expr_kind::positive:
  case expr_kind::logic_not:
    break;
  }
  auto v = eval(*e.kids[0], s);
  if (!v)
    return v;
  if (e.kind == expr_kind::logic_not)
    return make_bool(!truthy(*v));
  if (e.kind == expr_kind::negate)
    return placed(e.line, negated(*v));
  return placed(e.line, arithmetic(rt_, operation::add, make_int(0), *v));
}

result<value> evaluator::eval_name(const expr& e, scope& s) {
  for (const scope* at = &s; at; at = at->parent)
    if (const auto found = at->vars.find(e.name); found != at->vars.end())
      return found->second;
  if (const auto* row = find_function(e.name))
    return value{row};
  return make_undefined(fmt::format("'{}' is undefined", e.name));
}

result<value> evaluator::eval_items(const expr& e, scope& s) {
  std::vector<value> items;
  items.reserve(e.kids.size());
  for (const auto& kid : e.kids) {
    auto v = eval(*kid, s);
    if (!v)
      return v;
    items.push_back(std::move(*v));
  }
  const auto kind = e.kind == expr_kind::list ? sequence_kind::list : sequence_kind::tuple;
  return placed(e.line, make_list(rt_.budget, std::move(items), kind));
}

result<value> evaluator::eval_dict(const expr& e, scope& s) {
  std::vector<std::pair<value, value>> entries;
  for (std::size_t i = 0; i + 1 < e.kids.size(); i += 2) {
    auto key = eval(*e.kids[i], s);
    if (!key)
      return key;
    auto item = eval(*e.kids[i + 1], s);
    if (!item)
      return item;
    if (!hashable(*key))
      return at(e.line, {errc::invalid_argument,
                         fmt::format("{} cannot be a key of a dict", type_name(*key))});
    if (auto ok = rt_.budget.spend(1 + entries.size() / 16); !ok)
      return at(e.line, ok.error());
    bool known = false;
    for (auto& entry : entries) {
      const auto same = equals(rt_, entry.first, *key);
      if (!same)
        return at(e.line, same.error());
      if (*same)
        entry.second = *item;
      known = known || *same;
    }
    if (!known)
      entries.emplace_back(std::move(*key), std::move(*item));
  }
  return placed(e.line, make_dict(rt_.budget, std::move(entries)));
}

result<value> evaluator::eval_binary(const expr& e, scope& s) {
  auto a = eval(*e.kids[0], s);
  if (!a)
    return a;
  auto b = eval(*e.kids[1], s);
  if (!b)
    return b;
  return placed(e.line, arithmetic(rt_, e.ops[0], *a, *b));
}

result<value> evaluator::eval_concat(const expr& e, scope& s) {
  std::string out;
  for (const auto& kid : e.kids) {
    auto v = eval(*kid, s);
    if (!v)
      return v;
    auto text = to_text(rt_, *v);
    if (!text)
      return at(e.line, text.error());
    if (auto ok = append(rt_, out, *text); !ok)
      return at(e.line, ok.error());
  }
  return placed(e.line, make_text(rt_.budget, std::move(out)));
}

result<value> evaluator::eval_compare(const expr& e, scope& s) {
  auto left = eval(*e.kids[0], s);
  for (std::size_t i = 0; left && i < e.ops.size(); ++i) {
    auto right = eval(*e.kids[i + 1], s);
    if (!right)
      return right;
    const auto holds = compare(rt_, e.ops[i], *left, *right);
    if (!holds)
      return at(e.line, holds.error());
    if (!*holds)
      return make_bool(false);
    left = std::move(right);
  }
  return left ? result<value>(make_bool(true)) : left;
}

result<value> evaluator::eval_logic(const expr& e, scope& s) {
  const bool ends_at = e.kind == expr_kind::logic_or;
  result<value> v = value{};
  for (const auto& kid : e.kids) {
    v = eval(*kid, s);
    if (!v || truthy(*v) == ends_at)
      return v;
  }
  return v;
}

result<value> evaluator::eval_conditional(const expr& e, scope& s) {
  auto condition = eval(*e.kids[0], s);
  if (!condition)
    return condition;
  if (truthy(*condition))
    return eval(*e.kids[1], s);
  if (e.kids[2])
    return eval(*e.kids[2], s);
  return make_undefined("the inline if expression is false and has no else");
}

result<value> evaluator::eval_access(const expr& e, scope& s) {
  auto from = eval(*e.kids[0], s);
  if (!from)
    return from;
  if (e.kind == expr_kind::attribute)
    return placed(e.line, get_attribute(rt_, *from, e.name));
  auto key = eval(*e.kids[1], s);
  if (!key)
    return key;
  return placed(e.line, get_item(rt_, *from, *key));
}

result<value> evaluator::eval_slice(const expr& e, scope& s) {
  auto from = eval(*e.kids[0], s);
  if (!from)
    return from;
  std::array<value, 3> bounds{make_none(), make_none(), make_none()};
  for (std::size_t i = 0; i < 3; ++i) {
    if (!e.kids[i + 1])
      continue;
    auto v = eval(*e.kids[i + 1], s);
    if (!v)
      return v;
    bounds[i] = std::move(*v);
  }
  return placed(e.line, slice(rt_, *from, bounds));
}

} // namespace troupe::engine::jinja
