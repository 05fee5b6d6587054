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

result<stmt_ptr> parser::set(std::uint32_t line) {
  auto s = make_stmt(stmt_kind::set, line);
  auto to = target(true);
  if (!to)
    return fail(to.error());
  s->target = std::move(*to);
  if (skip("=")) {
    auto e = tuple(tuple_mode::full);
    if (!e)
      return fail(e.error());
    s->heads.push_back(std::move(*e));
    if (auto ok = expect_block_end(); !ok)
      return fail(ok.error());
    return s;
  }
  s->kind = stmt_kind::set_block;
  auto filters = filter_chain(expr_ptr{});
  if (!filters)
    return fail(filters.error());
  s->heads.push_back(std::move(*filters));
  if (auto ok = block_body(*s, "endset"); !ok)
    return fail(ok.error());
  return s;
}

result<void> parser::signature(stmt& s) {
  if (auto ok = expect("("); !ok)
    return ok;
  while (!sees(")")) {
    auto name = expect_name();
    if (!name)
      return fail(name.error());
    s.names.push_back(std::move(*name));
    if (skip("=")) {
      auto e = expression();
      if (!e)
        return fail(e.error());
      s.values.push_back(std::move(*e));
    } else if (!s.values.empty()) {
      return broken("a parameter without a default follows one with a default");
    }
    if (!skip(","))
      break;
  }
  return expect(")");
}

result<void> parser::macro_body(stmt& s, std::string_view end) {
  // Its loops and special names are its own, not those of what stands around it.
  const auto loops = std::exchange(loops_, 0);
  const bool varargs = std::exchange(mentions_varargs_, false);
  const bool kwargs = std::exchange(mentions_kwargs_, false);
  auto ok = block_body(s, end);
  s.takes_varargs = std::exchange(mentions_varargs_, varargs);
  s.takes_kwargs = std::exchange(mentions_kwargs_, kwargs);
  loops_ = loops;
  return ok;
}

result<stmt_ptr> parser::macro(std::uint32_t line) {
  auto s = make_stmt(stmt_kind::macro, line);
  auto name = expect_name();
  if (!name)
    return fail(name.error());
  s->text = std::move(*name);
  if (auto ok = signature(*s); !ok)
    return fail(ok.error());
  if (auto ok = macro_body(*s, "endmacro"); !ok)
    return fail(ok.error());
  return s;
}

result<stmt_ptr> parser::call_block(std::uint32_t line) {
  auto s = make_stmt(stmt_kind::call_block, line);
  if (sees("("))
    if (auto ok = signature(*s); !ok)
      return fail(ok.error());
  auto e = expression();
  if (!e)
    return fail(e.error());
  if ((*e)->kind != expr_kind::call)
    return broken("a call block needs a call");
  s->heads.push_back(std::move(*e));
  if (auto ok = macro_body(*s, "endcall"); !ok)
    return fail(ok.error());
  return s;
}

result<stmt_ptr> parser::filter_block(std::uint32_t line) {
  auto s = make_stmt(stmt_kind::filter_block, line);
  // The first filter has no '|' before it; filter() steps over the one token before the name.
  --at_;
  auto chain = filter(expr_ptr{});
  if (chain)
    chain = filter_chain(std::move(*chain));
  if (!chain)
    return fail(chain.error());
  s->heads.push_back(std::move(*chain));
  if (auto ok = block_body(*s, "endfilter"); !ok)
    return fail(ok.error());
  return s;
}

result<stmt_ptr> parser::with(std::uint32_t line) {
  auto s = make_stmt(stmt_kind::with, line);
  while (now().kind != token_kind::block_end) {
    if (!s->targets.empty() && !skip(","))
      return unexpected();
    auto to = one_target(false);
    if (!to)
      return fail(to.error());
    if (auto ok = expect("="); !ok)
      return fail(ok.error());
    auto e = expression();
    if (!e)
      return fail(e.error());
    s->targets.push_back(std::move(*to));
    s->values.push_back(std::move(*e));
  }
  if (auto ok = block_body(*s, "endwith"); !ok)
    return fail(ok.error());
  return s;
}

result<stmt_ptr> parser::generation(std::uint32_t line) {
  auto s = make_stmt(stmt_kind::scope, line);
  if (auto ok = macro_body(*s, "endgeneration"); !ok)
    return fail(ok.error());
  return s;
}

result<stmt_ptr> parser::interrupt(std::uint32_t line) {
  auto s = make_stmt(now().text == "break" ? stmt_kind::stop : stmt_kind::skip, line);
  if (loops_ == 0)
    return broken(fmt::format("'{}' stands outside a loop", now().text));
  next();
  if (auto ok = expect_block_end(); !ok)
    return fail(ok.error());
  return s;
}

result<stmt_ptr> parser::refused(std::uint32_t line) {
  return fail(errc::unsupported,
              located(name_, line,
                      fmt::format("the tag '{}' is not supported in a chat template: it must "
                                  "stand in one file; write its text here",
                                  now().text)));
}

result<body> parse(std::string_view source, std::string_view name, const limits& l) {
  if (source.size() > l.source_bytes_max)
    return fail(errc::limit_exceeded,
                fmt::format("{}: the template has {} bytes, more than the {} allowed", name,
                            source.size(), l.source_bytes_max));
  auto tokens = lex(source, name);
  if (!tokens)
    return fail(tokens.error());
  return parser(std::move(*tokens), name, l).statements({});
}

} // namespace troupe::engine::jinja
