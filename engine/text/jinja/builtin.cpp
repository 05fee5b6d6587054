#include "engine/text/jinja/builtin.hpp"

#include <fmt/format.h>

#include "engine/text/jinja/ops.hpp"

namespace troupe::engine::jinja {

namespace {

/// The index of `name` in a list of names separated by spaces; npos where it is not there.
std::size_t index_of(std::string_view params, std::string_view name) {
  for (std::size_t i = 0; !params.empty(); ++i) {
    const auto space = params.find(' ');
    if (params.substr(0, space) == name)
      return i;
    params = space == params.npos ? std::string_view{} : params.substr(space + 1);
  }
  return std::string_view::npos;
}

std::size_t count_of(std::string_view params) {
  std::size_t n = params.empty() ? 0 : 1;
  for (const char c : params)
    n += c == ' ';
  return n;
}

} // namespace

tl::unexpected<error> wrong(std::string note) {
  return fail(errc::invalid_argument, std::move(note));
}

result<object*> runtime::keep(std::unique_ptr<object> made) {
  constexpr std::size_t object_bytes = 256;
  if (auto ok = budget.room(object_bytes); !ok)
    return fail(ok.error());
  budget.take(object_bytes);
  objects.push_back(std::move(made));
  return objects.back().get();
}

result<std::int64_t> call_site::integer(std::size_t i, std::int64_t otherwise) const {
  if (!args[i])
    return otherwise;
  std::int64_t n = 0;
  if (as_integer(*args[i], n))
    return n;
  return wrong(fmt::format("an integer is needed, not {}", type_name(*args[i])));
}

result<std::string> call_site::text(std::size_t i, std::string_view otherwise) const {
  if (!args[i])
    return std::string(otherwise);
  if (const auto* t = args[i]->text())
    return *t;
  return wrong(fmt::format("a text is needed, not {}", type_name(*args[i])));
}

bool call_site::flag(std::size_t i, bool otherwise) const {
  return args[i] ? truthy(*args[i]) : otherwise;
}

result<value> invoke(runtime& rt, const builtin& row, const value& self, const arguments& args) {
  call_site site{rt, self, args, {}};
  if (auto ok = rt.budget.spend(1); !ok)
    return fail(ok.error());
  if (row.params == "*")
    return row.run(site);
  const std::size_t count = count_of(row.params);
  if (args.positional.size() > count)
    return wrong(fmt::format("{}() takes at most {} arguments, not {}", row.name, count,
                             args.positional.size()));
  for (std::size_t i = 0; i < args.positional.size(); ++i)
    site.args[i] = &args.positional[i];
  for (const auto& [name, given] : args.named) {
    const auto i = index_of(row.params, name);
    if (i == std::string_view::npos)
      return wrong(fmt::format("{}() knows no argument '{}'", row.name, name));
    if (site.args[i])
      return wrong(fmt::format("{}() got '{}' twice", row.name, name));
    site.args[i] = &given;
  }
  for (std::size_t i = 0; i < row.required; ++i)
    if (!site.args[i])
      return wrong(fmt::format("{}() needs {} arguments", row.name, row.required));
  return row.run(site);
}

const builtin* find_row(std::span<const builtin> table, std::string_view name) {
  for (const auto& row : table)
    if (row.name == name)
      return &row;
  return nullptr;
}

const builtin* find_filter(std::string_view name) {
  for (const auto table : {text_filters(), list_filters(), pick_filters(), number_filters()})
    if (const auto* row = find_row(table, name))
      return row;
  return nullptr;
}

const builtin* find_test(std::string_view name) { return find_row(test_rows(), name); }

const builtin* find_function(std::string_view name) { return find_row(function_rows(), name); }

const builtin* find_method(const value& self, std::string_view name) {
  return find_row(self.text() ? text_methods() : container_methods(self), name);
}

} // namespace troupe::engine::jinja
