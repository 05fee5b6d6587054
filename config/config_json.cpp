#include <fmt/core.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>

#include "config/json_tree.hpp"
#include "config/text.hpp"
#include "config/triton_draft.hpp"

namespace troupe::config {

namespace {

namespace pb = google::protobuf;

constexpr auto request_name = "load request";
constexpr std::size_t most_elements = 1024;

/// Records the lines of what the JSON gives, for the fields of `type`.
class json_recorder {
public:
  json_recorder(triton_draft& draft, diagnostic_sink& sink) : draft_{draft}, sink_{sink} {}

  void record(const json_value& object, const pb::Descriptor& type, const std::string& path) {
    for (const auto& member : object.members) {
      const auto* field = type.FindFieldByName(member.key);
      if (field == nullptr)
        field = type.FindFieldByCamelcaseName(member.key);
      // A null is no value, and unknown names are refused before.
      if (field == nullptr || member.value.kind == json_kind::null)
        continue;
      const auto name = path.empty() ? field->name() : path + "." + field->name();
      record_value(member.value, *field, name);
    }
  }

private:
  void record_value(const json_value& value, const pb::FieldDescriptor& field,
                    const std::string& name) {
    if (value.items.size() > most_elements || value.members.size() > most_elements) {
      sink_.error(errc::limit_exceeded, value.from(), name,
                  fmt::format("has more than {} elements", most_elements));
      return;
    }
    if (field.is_map())
      return record_entries(value, field, name);
    const bool nested = field.cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE;
    if (!nested || !field.is_repeated())
      draft_.origins.emplace(name, value.from());
    if (!nested)
      return;
    if (!field.is_repeated())
      return record(value, *field.message_type(), name);
    for (std::size_t i = 0; i < value.items.size(); ++i) {
      draft_.origins.emplace(element_path(name, i), value.items[i].from());
      record(value.items[i], *field.message_type(), element_path(name, i));
    }
  }

  void record_entries(const json_value& value, const pb::FieldDescriptor& field,
                      const std::string& name) {
    const auto& inner = *field.message_type()->map_value();
    for (const auto& entry : value.members) {
      const auto path = element_path(name, entry.key);
      draft_.origins.emplace(path, entry.value.from());
      if (inner.cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE)
        record(entry.value, *inner.message_type(), path + ".value");
    }
  }

  triton_draft& draft_;
  diagnostic_sink& sink_;
};

} // namespace

std::optional<triton_draft> parse_config_json(std::string_view text, diagnostic_sink& sink) {
  const auto before = sink.error_count();
  triton_draft draft;
  draft.file = request_name;
  const auto source =
      std::make_shared<const json_source>(json_source{origin_kind::user_file, request_name, {}});
  const auto tree = parse_json(text, source, sink);
  if (!tree)
    return std::nullopt;
  const auto status = pb::util::JsonStringToMessage(std::string{text}, &draft.message);
  if (!status.ok()) {
    sink.error(errc::invalid_argument, {origin_kind::user_file, request_name, 1, {}}, "",
               fmt::format("Invalid config override: {}", std::string{status.message()}));
    return std::nullopt;
  }
  json_recorder{draft, sink}.record(*tree, *draft.message.GetDescriptor(), "");
  return sink.error_count() == before ? std::optional{std::move(draft)} : std::nullopt;
}

} // namespace troupe::config
