#include <algorithm>

#include <fmt/format.h>

#include "engine/text/jinja/evaluator.hpp"

namespace troupe::engine::jinja {

result<void> evaluator::spread(const argument& arg, const value& v, arguments& out) {
  if (arg.spread == argument::spread_kind::list) {
    auto items = iterate(rt_, v);
    if (!items)
      return at(arg.expression->line, items.error());
    const auto& all = (*items)->items;
    if (auto ok = rt_.budget.room(all.size() * sizeof(value)); !ok)
      return at(arg.expression->line, ok.error());
    out.positional.insert(out.positional.end(), all.begin(), all.end());
    return {};
  }
  const auto* d = v.dict();
  if (!d)
    return at(arg.expression->line, {errc::invalid_argument, "** needs a dict"});
  for (const auto& [key, item] : d->entries) {
    if (!key.text())
      return at(arg.expression->line, {errc::invalid_argument, "names of arguments are texts"});
    out.named.emplace_back(*key.text(), item);
  }
  return {};
}

result<arguments> evaluator::eval_args(const expr& e, scope& s) {
  arguments out;
  for (const auto& arg : e.args) {
    auto v = eval(*arg.expression, s);
    if (!v)
      return fail(v.error());
    if (arg.spread != argument::spread_kind::none) {
      if (auto ok = spread(arg, *v, out); !ok)
        return fail(ok.error());
    } else if (arg.name.empty()) {
      out.positional.push_back(std::move(*v));
    } else {
      out.named.emplace_back(arg.name, std::move(*v));
    }
  }
  return out;
}

result<value> evaluator::eval_filter(const expr& e, scope& s, const value* subject) {
  result<value> v = subject ? result<value>(*subject) : result<value>(value{});
  if (e.kids[0]) {
    const bool chained = subject && e.kids[0]->kind == expr_kind::filter;
    v = chained ? eval_filter(*e.kids[0], s, subject) : eval(*e.kids[0], s);
  }
  if (!v)
    return v;
  if (!e.row)
    return at(e.line, {errc::unsupported, fmt::format("no filter named '{}'", e.name)});
  auto args = eval_args(e, s);
  if (!args)
    return fail(args.error());
  return placed(e.line, invoke(rt_, *e.row, *v, *args));
}

result<value> evaluator::eval_test(const expr& e, scope& s) {
  auto v = eval(*e.kids[0], s);
  if (!v)
    return v;
  if (!e.row)
    return at(e.line, {errc::unsupported, fmt::format("no test named '{}'", e.name)});
  auto args = eval_args(e, s);
  if (!args)
    return fail(args.error());
  return placed(e.line, invoke(rt_, *e.row, *v, *args));
}

result<value> evaluator::eval_call(const expr& e, scope& s, const value* caller) {
  auto callee = eval(*e.kids[0], s);
  if (!callee)
    return callee;
  auto args = eval_args(e, s);
  if (!args)
    return fail(args.error());
  if (caller)
    args->named.emplace_back("caller", *caller);
  return call(*callee, *args, e.line);
}

result<value> evaluator::call(const value& callee, const arguments& args, std::uint32_t line) {
  if (const auto* row = callee.get<const builtin*>())
    return placed(line, invoke(rt_, **row, value{}, args));
  if (const auto* m = callee.get<method_ptr>())
    return placed(line, invoke(rt_, *(*m)->row, (*m)->self, args));
  if (auto* o = callee.obj()) {
    if (o->kind != object_kind::macro)
      return placed(line, call_object(*o, args));
    const entered level(*this);
    if (auto ok = enter(line); !ok)
      return fail(ok.error());
    return call_macro(static_cast<const macro_object&>(*o), args);
  }
  if (callee.is_undefined())
    return at(line, undefined_error(callee).value());
  return at(line, {errc::invalid_argument, fmt::format("{} cannot be called", type_name(callee))});
}

result<value> evaluator::call_object(object& o, const arguments& args) {
  if (o.kind == object_kind::loop)
    return fail(errc::unsupported, "recursive loops are not supported");
  if (o.kind != object_kind::joiner || !args.positional.empty() || !args.named.empty())
    return wrong("the object cannot be called so");
  // A joiner gives nothing the first time and its separator from then on.
  auto& turns = static_cast<turn_taker&>(o);
  return ++turns.turn == 1 ? make_literal("") : turns.items[0];
}

result<void> evaluator::bind_macro(const macro_object& m, const arguments& args, scope& inner) {
  const auto& def = *m.definition;
  const std::string what = m.is_caller ? "caller" : def.text;
  std::vector<value> varargs;
  for (std::size_t i = 0; i < args.positional.size(); ++i) {
    if (i < def.names.size())
      inner.vars.insert_or_assign(def.names[i], args.positional[i]);
    else
      varargs.push_back(args.positional[i]);
  }
  std::vector<std::pair<value, value>> rest;
  for (const auto& [name, item] : args.named) {
    const auto known = std::find(def.names.begin(), def.names.end(), name);
    if (known != def.names.end()) {
      if (!inner.vars.emplace(*known, item).second)
        return at(def.line,
                  {errc::invalid_argument, fmt::format("macro '{}' gets '{}' twice", what, name)});
    } else if (name == "caller" && !m.is_caller) {
      inner.vars.insert_or_assign("caller", item);
    } else {
      rest.emplace_back(make_literal(name), item);
    }
  }
  // Jinja passes on surplus arguments only to macros that mention them.
  if (!varargs.empty() && !def.takes_varargs)
    return at(def.line, {errc::invalid_argument, fmt::format("macro '{}' takes not more than {} "
                                                             "arguments",
                                                             what, def.names.size())});
  if (!rest.empty() && !def.takes_kwargs)
    return at(def.line, {errc::invalid_argument, fmt::format("macro '{}' takes no argument '{}'",
                                                             what, *rest[0].first.text())});
  auto more = make_list(rt_.budget, std::move(varargs), sequence_kind::tuple);
  auto named = make_dict(rt_.budget, std::move(rest));
  if (!more || !named)
    return at(def.line, more ? named.error() : more.error());
  if (def.takes_varargs)
    inner.vars.insert_or_assign("varargs", std::move(*more));
  if (def.takes_kwargs)
    inner.vars.insert_or_assign("kwargs", std::move(*named));
  return {};
}

result<value> evaluator::call_macro(const macro_object& m, const arguments& args) {
  const entered level(*this, m.closure);
  scope& inner = level.inner();
  const auto& def = *m.definition;
  if (auto ok = bind_macro(m, args, inner); !ok)
    return fail(ok.error());
  const std::size_t without_default = def.names.size() - def.values.size();
  std::vector<std::size_t> left_out;
  for (std::size_t i = 0; i < def.names.size(); ++i)
    if (inner.vars.count(def.names[i]) == 0)
      left_out.push_back(i);
  // A default sees all parameters, those that were left out as undefined.
  for (const auto i : left_out)
    inner.vars.insert_or_assign(
        def.names[i], make_undefined(fmt::format("parameter '{}' was not provided", def.names[i])));
  for (const auto i : left_out) {
    if (i < without_default)
      continue;
    auto v = eval(*def.values[i - without_default], inner);
    if (!v)
      return v;
    inner.vars.insert_or_assign(def.names[i], std::move(*v));
  }
  if (!m.is_caller)
    inner.vars.emplace("caller", make_undefined("no caller is defined: this is no call block"));
  output out(rt_);
  auto done = run(def.bodies[0], inner, out);
  if (!done)
    return fail(done.error());
  return placed(def.line, make_text(rt_.budget, out.text()));
}

} // namespace troupe::engine::jinja
