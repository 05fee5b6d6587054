#include "engine/text/chat_template.hpp"

#include <nlohmann/json.hpp>

#include "engine/text/jinja/evaluator.hpp"
#include "engine/text/jinja/json.hpp"
#include "engine/text/jinja/parser.hpp"

namespace troupe::engine {

namespace {

/// Defines `name` as the JSON, or as none where there is none.
result<void> define(jinja::evaluator& e, jinja::runtime& rt, std::string_view name,
                    const nlohmann::ordered_json* j) {
  auto v = j ? jinja::from_json(rt, *j) : result<jinja::value>(jinja::make_none());
  if (!v)
    return fail(v.error());
  e.define(name, std::move(*v));
  return {};
}

result<void> define_all(jinja::evaluator& e, jinja::runtime& rt, const chat_template_input& in) {
  if (auto ok = define(e, rt, "messages", in.messages); !ok)
    return ok;
  if (auto ok = define(e, rt, "tools", in.tools); !ok)
    return ok;
  if (auto ok = define(e, rt, "documents", in.documents); !ok)
    return ok;
  e.define("add_generation_prompt", jinja::make_bool(in.add_generation_prompt));
  if (in.bos_token)
    e.define("bos_token", jinja::make_literal(*in.bos_token));
  if (in.eos_token)
    e.define("eos_token", jinja::make_literal(*in.eos_token));
  if (!in.extra || in.extra->is_null())
    return {};
  if (!in.extra->is_object())
    return fail(errc::invalid_argument, "the extra variables of a chat template are an object");
  for (auto it = in.extra->begin(); it != in.extra->end(); ++it)
    if (auto ok = define(e, rt, it.key(), &*it); !ok)
      return ok;
  return {};
}

} // namespace

struct chat_template::parsed {
  std::string name;
  jinja::limits bounds;
  jinja::body statements;
};

chat_template::chat_template(std::unique_ptr<const parsed> p) : parsed_(std::move(p)) {}
chat_template::chat_template(chat_template&&) noexcept = default;
chat_template& chat_template::operator=(chat_template&&) noexcept = default;
chat_template::~chat_template() = default;

result<chat_template> chat_template::parse(std::string source, std::string name,
                                           const jinja::limits& bounds) {
  auto statements = jinja::parse(source, name, bounds);
  if (!statements)
    return fail(statements.error());
  return chat_template(
      std::unique_ptr<const parsed>(new parsed{std::move(name), bounds, std::move(*statements)}));
}

result<std::string> chat_template::render(const chat_template_input& input) const {
  jinja::runtime rt(parsed_->bounds);
  rt.now = input.now;
  jinja::evaluator e(rt, parsed_->name);
  if (auto ok = define_all(e, rt, input); !ok)
    return fail(ok.error());
  return e.render(parsed_->statements);
}

} // namespace troupe::engine
