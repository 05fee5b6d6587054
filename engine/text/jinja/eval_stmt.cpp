#include <fmt/format.h>

#include "engine/text/jinja/evaluator.hpp"
#include "engine/text/jinja/loop.hpp"

namespace troupe::engine::jinja {

result<void> output::add(std::string_view more) {
  const auto before = text_.size();
  if (auto ok = rt_.budget.room(more.size()); !ok)
    return ok;
  auto ok = append(rt_, text_, more);
  rt_.budget.take(text_.size() - before);
  return ok;
}

result<std::string> evaluator::render(const body& statements) {
  output out(rt_);
  auto done = run(statements, root_, out);
  if (!done)
    return fail(done.error());
  return out.text();
}

result<evaluator::flow> evaluator::run(const body& statements, scope& s, output& out) {
  for (const auto& st : statements) {
    const entered level(*this);
    if (auto ok = enter(st->line); !ok)
      return fail(ok.error());
    auto how = run_one(*st, s, out);
    if (!how || *how != flow::normal)
      return how;
  }
  return flow::normal;
}

result<evaluator::flow> evaluator::run_one(const stmt& st, scope& s, output& out) {
  switch (st.kind) {
  case stmt_kind::data:
    if (auto ok = out.add(st.text); !ok)
      return at(st.line, ok.error());
    return flow::normal;
  case stmt_kind::print:
    return run_print(st, s, out);
  case stmt_kind::branch:
    return run_branch(st, s, out);
  case stmt_kind::loop:
    return run_loop(st, s, out);
  case stmt_kind::set:
    return run_set(st, s);
  case stmt_kind::set_block:
    return run_set_block(st, s);
  case stmt_kind::macro:
    return run_macro(st, s);
  case stmt_kind::call_block:
    return run_call_block(st, s, out);
  case stmt_kind::filter_block:
    return run_filter_block(st, s, out);
  case stmt_kind::with:
    return run_with(st, s, out);
  case stmt_kind::scope:
    return run_scoped(st.bodies[0], s, out);
  case stmt_kind::stop:
    return flow::stop;
  case stmt_kind::skip:
    return flow::skip;
  }
  return flow::normal;
}

result<evaluator::flow> evaluator::run_print(const stmt& st, scope& s, output& out) {
  for (const auto& head : st.heads) {
    auto v = eval(*head, s);
    if (!v)
      return fail(v.error());
    if (auto done = print(*v, out, st.line); !done)
      return done;
  }
  return flow::normal;
}

result<evaluator::flow> evaluator::print(const value& v, output& out, std::uint32_t line) {
  auto text = to_text(rt_, v);
  if (!text)
    return at(line, text.error());
  if (auto ok = out.add(*text); !ok)
    return at(line, ok.error());
  return flow::normal;
}

result<evaluator::flow> evaluator::run_scoped(const body& statements, scope& s, output& out) {
  const entered level(*this, &s);
  return run(statements, level.inner(), out);
}

result<evaluator::flow> evaluator::run_branch(const stmt& st, scope& s, output& out) {
  for (std::size_t i = 0; i < st.heads.size(); ++i) {
    auto v = eval(*st.heads[i], s);
    if (!v)
      return fail(v.error());
    if (truthy(*v))
      return run(st.bodies[i], s, out);
  }
  if (st.bodies.size() > st.heads.size())
    return run(st.bodies.back(), s, out);
  return flow::normal;
}

result<list_ptr> evaluator::loop_items(const stmt& st, scope& s) {
  auto over = eval(*st.heads[0], s);
  if (!over)
    return fail(over.error());
  auto items = placed(st.line, iterate(rt_, *over));
  if (!items || !st.heads[1])
    return items;
  std::vector<value> kept;
  for (const auto& item : (*items)->items) {
    const entered level(*this, &s);
    if (auto ok = assign(*st.target, item, level.inner()); !ok)
      return fail(ok.error());
    auto wanted = eval(*st.heads[1], level.inner());
    if (!wanted)
      return fail(wanted.error());
    if (truthy(*wanted))
      kept.push_back(item);
  }
  auto made = placed(st.line, make_list(rt_.budget, std::move(kept)));
  if (!made)
    return fail(made.error());
  return std::get<list_ptr>(made->data);
}

result<evaluator::flow> evaluator::run_loop(const stmt& st, scope& s, output& out) {
  auto items = loop_items(st, s);
  if (!items)
    return fail(items.error());
  if ((*items)->items.empty())
    return run_scoped(st.bodies[1], s, out);
  auto made = std::make_unique<loop_state>();
  auto* loop = made.get();
  loop->items = *items;
  auto kept = placed(st.line, rt_.keep(std::move(made)));
  if (!kept)
    return fail(kept.error());
  result<flow> how = flow::normal;
  for (; how && *how != flow::stop && loop->at < loop->items->items.size(); ++loop->at) {
    const entered level(*this, &s);
    level.inner().vars.insert_or_assign("loop", value{*kept});
    how = run_pass(st, loop->items->items[loop->at], level.inner(), out);
  }
  return how ? result<flow>(flow::normal) : how;
}

result<evaluator::flow> evaluator::run_pass(const stmt& st, const value& item, scope& inner,
                                            output& out) {
  if (auto ok = enter(st.line); !ok)
    return fail(ok.error());
  if (auto ok = assign(*st.target, item, inner); !ok)
    return fail(ok.error());
  return run(st.bodies[0], inner, out);
}

result<void> evaluator::assign(const expr& target, const value& v, scope& s) {
  if (target.kind == expr_kind::name) {
    s.vars.insert_or_assign(target.name, v);
    return {};
  }
  if (target.kind == expr_kind::attribute) {
    auto owner = eval(*target.kids[0], s);
    if (!owner)
      return fail(owner.error());
    auto* o = owner->obj();
    if (!o || o->kind != object_kind::name_space)
      return at(target.line,
                {errc::invalid_argument, "only an attribute of a namespace can be set"});
    auto& ns = static_cast<name_space&>(*o);
    if (auto ok = rt_.budget.spend(1 + ns.fields.size() / 16); !ok)
      return at(target.line, ok.error());
    ns.set(target.name, v);
    return {};
  }
  auto parts = iterate(rt_, v);
  if (!parts)
    return at(target.line, parts.error());
  const auto& items = (*parts)->items;
  if (items.size() != target.kids.size())
    return at(target.line,
              {errc::invalid_argument, fmt::format("{} values cannot be unpacked into {} names",
                                                   items.size(), target.kids.size())});
  for (std::size_t i = 0; i < items.size(); ++i)
    if (auto ok = assign(*target.kids[i], items[i], s); !ok)
      return ok;
  return {};
}

result<evaluator::flow> evaluator::run_set(const stmt& st, scope& s) {
  auto v = eval(*st.heads[0], s);
  if (!v)
    return fail(v.error());
  if (auto ok = assign(*st.target, *v, s); !ok)
    return fail(ok.error());
  return flow::normal;
}

result<value> evaluator::capture(const body& statements, scope& s) {
  output out(rt_);
  auto how = run_scoped(statements, s, out);
  if (!how)
    return fail(how.error());
  return make_text(rt_.budget, out.text());
}

result<evaluator::flow> evaluator::run_set_block(const stmt& st, scope& s) {
  auto v = capture(st.bodies[0], s);
  if (v && st.heads[0])
    v = eval_filter(*st.heads[0], s, &*v);
  if (!v)
    return fail(v.error());
  if (auto ok = assign(*st.target, *v, s); !ok)
    return fail(ok.error());
  return flow::normal;
}

result<evaluator::flow> evaluator::run_filter_block(const stmt& st, scope& s, output& out) {
  auto v = capture(st.bodies[0], s);
  if (v)
    v = eval_filter(*st.heads[0], s, &*v);
  return v ? print(*v, out, st.line) : result<flow>(fail(v.error()));
}

result<value> evaluator::make_macro(const stmt& st, scope& s, bool caller) {
  auto kept = rt_.keep(std::make_unique<macro_object>(&st, &s, caller));
  if (!kept)
    return at(st.line, kept.error());
  for (scope* around = &s; around && !around->captured; around = around->parent)
    around->captured = true;
  return value{*kept};
}

result<evaluator::flow> evaluator::run_macro(const stmt& st, scope& s) {
  auto made = make_macro(st, s, false);
  if (!made)
    return fail(made.error());
  s.vars.insert_or_assign(st.text, std::move(*made));
  return flow::normal;
}

result<evaluator::flow> evaluator::run_call_block(const stmt& st, scope& s, output& out) {
  auto caller = make_macro(st, s, true);
  if (!caller)
    return fail(caller.error());
  auto v = eval_call(*st.heads[0], s, &*caller);
  return v ? print(*v, out, st.line) : result<flow>(fail(v.error()));
}

result<evaluator::flow> evaluator::run_with(const stmt& st, scope& s, output& out) {
  const entered level(*this, &s);
  for (std::size_t i = 0; i < st.targets.size(); ++i) {
    auto v = eval(*st.values[i], s);
    if (!v)
      return fail(v.error());
    if (auto ok = assign(*st.targets[i], *v, level.inner()); !ok)
      return fail(ok.error());
  }
  return run(st.bodies[0], level.inner(), out);
}

} // namespace troupe::engine::jinja
