#include "config/merge.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "config/text.hpp"
#include "troupe/config/engine_arguments.hpp"

namespace troupe::config {

namespace {

constexpr std::string_view section_keys[] = {"instances", "max_queued_requests"};

bool is_file(const json_value& v) { return v.source && v.source->kind == origin_kind::user_file; }

/// Adds one argument of the section to `merged`, or says that the two sources disagree.
void merge_member(json_value& merged, std::string key, const json_value& value,
                  const std::string& path, diagnostic_sink& sink) {
  auto* other = merged.find(key);
  if (other == nullptr || other->kind == json_kind::null) {
    if (other == nullptr)
      merged.members.push_back({std::move(key), value.line, value});
    else
      *other = value;
    return;
  }
  if (value.kind == json_kind::null)
    return;
  if (is_file(value) && is_file(*other) && !same_value(value, *other))
    sink.error(errc::conflict, value.from(), join_path(path, key),
               fmt::format("{} here, but {} at {}; what is said twice must agree, so remove one",
                           to_text(value), to_text(*other), to_string(other->from())));
  // A person's override of one source stays; among overrides the section's is the later one.
  if (!is_file(value) || is_file(*other))
    *other = value;
}

bool right_kind(const json_value& v, const engine_argument& row) {
  switch (row.kind) {
  case argument_kind::boolean:
    return v.kind == json_kind::boolean;
  case argument_kind::integer:
    return v.kind == json_kind::integer && v.number >= row.least && v.number <= row.most;
  case argument_kind::number:
    return (v.kind == json_kind::integer || v.kind == json_kind::real) && v.number >= row.least &&
           v.number <= row.most;
  case argument_kind::string:
    return v.kind == json_kind::string;
  case argument_kind::string_or_list:
    return v.kind == json_kind::string || v.kind == json_kind::array;
  case argument_kind::list:
    return v.kind == json_kind::array;
  case argument_kind::object:
    return v.kind == json_kind::object;
  case argument_kind::any:
    return true;
  }
  return false;
}

std::string wanted(const engine_argument& row) {
  switch (row.kind) {
  case argument_kind::boolean:
    return "true or false";
  case argument_kind::integer:
    return fmt::format("an integer from {} to {}", number_text(row.least), number_text(row.most));
  case argument_kind::number:
    return fmt::format("a number from {} to {}", number_text(row.least), number_text(row.most));
  case argument_kind::string:
    return "a string";
  case argument_kind::string_or_list:
    return "a string or a list of strings";
  case argument_kind::list:
    return "a list";
  case argument_kind::object:
    return "an object";
  case argument_kind::any:
    break;
  }
  return "a value";
}

/// True when an unsupported argument's value asks for nothing, such as pipeline_parallel_size 1.
bool asks_for_nothing(const json_value& v, const engine_argument& row) {
  if ((v.kind == json_kind::array && v.items.empty()) ||
      (v.kind == json_kind::object && v.members.empty()) ||
      (v.kind == json_kind::string && v.text.empty()))
    return true;
  if ((v.kind == json_kind::integer || v.kind == json_kind::real) && row.usual == "0")
    return v.number == 0;
  const auto text = v.kind == json_kind::string ? v.text : to_text(v);
  std::string_view rest = row.usual;
  while (!rest.empty()) {
    const auto bar = rest.find('|');
    if (rest.substr(0, bar) == text)
      return true;
    rest.remove_prefix(bar == std::string_view::npos ? rest.size() : bar + 1);
  }
  return false;
}

void list_ineffective(object_reader& r, model_config& model, diagnostic_sink& sink) {
  for (const auto& row : ineffective_arguments()) {
    const auto* v = r.find(row.name);
    if (v == nullptr)
      continue;
    if (!right_kind(*v, row))
      sink.error(errc::invalid_argument, v->from(), r.path_of(row.name),
                 fmt::format("must be {}, not {}", wanted(row), to_text(*v)));
    else
      model.without_effect.push_back(
          {std::string{row.name}, to_text(*v), v->from(), std::string{row.help}});
  }
}

void refuse_unsupported(object_reader& r, model_config& model, diagnostic_sink& sink) {
  for (const auto& row : unsupported_arguments()) {
    const auto* v = r.find(row.name);
    if (v == nullptr)
      continue;
    if (asks_for_nothing(*v, row))
      model.without_effect.push_back(
          {std::string{row.name}, to_text(*v), v->from(), "asks for nothing"});
    else if (right_kind(*v, row))
      sink.error(errc::unsupported, v->from(), r.path_of(row.name),
                 fmt::format("{} is not supported: {}", to_text(*v), row.help));
    else
      sink.error(errc::invalid_argument, v->from(), r.path_of(row.name),
                 fmt::format("must be {}, not {}; and it is not supported: {}", wanted(row),
                             to_text(*v), row.help));
  }
}

} // namespace

json_value empty_object(std::string file) {
  json_value v;
  v.kind = json_kind::object;
  v.line = 1;
  v.source =
      std::make_shared<const json_source>(json_source{origin_kind::user_file, std::move(file), {}});
  return v;
}

json_value merge_sections(const json_value& model_json, const json_value* section,
                          model_config& model, diagnostic_sink& sink) {
  const auto path = join_path("models", model.name);
  json_value merged = model_json;
  if (section == nullptr || section->kind == json_kind::null)
    return merged;
  object_reader r{*section, path, sink};
  if (!r.is_object() || merged.kind != json_kind::object)
    return merged;
  r.read("instances", model.instances, integer_in(1, 1024));
  r.read("max_queued_requests", model.max_queued_requests, integer_in(1, 1'000'000));
  for (const auto& m : section->members) {
    if (std::find(std::begin(section_keys), std::end(section_keys), m.key) !=
        std::end(section_keys))
      continue;
    merge_member(merged, m.key == "tensor_parallel" ? "tensor_parallel_size" : m.key, m.value, path,
                 sink);
  }
  return merged;
}

void refuse_by_tables(object_reader& arguments, model_config& model, diagnostic_sink& sink) {
  list_ineffective(arguments, model, sink);
  refuse_unsupported(arguments, model, sink);
  for (const auto& m : arguments.object().members) {
    const bool of_section = std::find(std::begin(section_keys), std::end(section_keys), m.key) !=
                                std::end(section_keys) ||
                            m.key == "tensor_parallel";
    if (!of_section)
      continue;
    arguments.accept(m.key);
    sink.error(errc::invalid_argument, m.value.from(), arguments.path_of(m.key),
               "belongs into the cluster file, below \"models\"; move it there");
  }
  arguments.refuse_unknown();
}

} // namespace troupe::config
