#include <fmt/core.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>

#include <algorithm>

#include "config/triton_reader.hpp"

namespace troupe::config {

namespace {

namespace pb = google::protobuf;

class line_writer {
public:
  explicit line_writer(const triton_draft& draft) : draft_{draft} {
    one_line_.SetSingleLineMode(true);
  }

  void write(const pb::Message& message, const std::string& path, std::size_t depth) {
    const auto& type = *message.GetDescriptor();
    for (int i = 0; i < type.field_count(); ++i) {
      const auto& field = *type.field(i);
      const auto name = path.empty() ? field.name() : path + "." + field.name();
      if (field.is_map())
        write_map(message, field, name, depth);
      else if (field.cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE)
        write_messages(message, field, name, depth);
      else
        write_scalar(message, field, name, depth);
    }
  }

  [[nodiscard]] std::vector<config_line> take() { return std::move(lines_); }

private:
  void add(std::size_t depth, std::string text, const std::string& path) {
    const auto from = draft_.from(path);
    lines_.push_back({!is_explicit(from), std::string(2 * depth, ' ') + std::move(text),
                      path.empty() ? std::string{} : to_string(from)});
  }

  void write_scalar(const pb::Message& message, const pb::FieldDescriptor& field,
                    const std::string& path, std::size_t depth) {
    const auto& r = *message.GetReflection();
    std::string text;
    if (!field.is_repeated()) {
      if (!r.HasField(message, &field) && !draft_.said(path))
        return;
      one_line_.PrintFieldValueToString(message, &field, -1, &text);
      add(depth, fmt::format("{}: {}", field.name(), text), path);
      return;
    }
    std::string list;
    for (int i = 0; i < r.FieldSize(message, &field); ++i) {
      one_line_.PrintFieldValueToString(message, &field, i, &text);
      list += (i == 0 ? "" : ", ") + text;
    }
    if (!list.empty())
      add(depth, fmt::format("{}: [{}]", field.name(), list), path);
  }

  void write_map(const pb::Message& message, const pb::FieldDescriptor& field,
                 const std::string& path, std::size_t depth) {
    const auto& r = *message.GetReflection();
    std::vector<std::pair<std::string, std::string>> entries;
    for (int i = 0; i < r.FieldSize(message, &field); ++i) {
      const auto& entry = r.GetRepeatedMessage(message, &field, i);
      const auto* key_field = entry.GetDescriptor()->map_key();
      std::string key;
      if (key_field->cpp_type() == pb::FieldDescriptor::CPPTYPE_STRING)
        key = entry.GetReflection()->GetString(entry, key_field);
      else
        one_line_.PrintFieldValueToString(entry, key_field, -1, &key);
      std::string text;
      one_line_.PrintToString(entry, &text);
      entries.emplace_back(std::move(key), fmt::format("{} {{ {}}}", field.name(), text));
    }
    std::sort(entries.begin(), entries.end());
    for (auto& [key, text] : entries)
      add(depth, std::move(text), element_path(path, key));
  }

  void write_messages(const pb::Message& message, const pb::FieldDescriptor& field,
                      const std::string& path, std::size_t depth) {
    const auto& r = *message.GetReflection();
    if (!field.is_repeated()) {
      if (r.HasField(message, &field))
        write_block(r.GetMessage(message, &field), field.name(), path, depth);
      return;
    }
    for (int i = 0; i < r.FieldSize(message, &field); ++i)
      write_block(r.GetRepeatedMessage(message, &field, i), field.name(),
                  element_path(path, static_cast<std::size_t>(i)), depth);
  }

  /// What nobody wrote is one line; what somebody wrote shows the origin of each of its fields.
  void write_block(const pb::Message& message, const std::string& name, const std::string& path,
                   std::size_t depth) {
    if (!is_explicit(draft_.from(path))) {
      std::string text;
      one_line_.PrintToString(message, &text);
      add(depth, fmt::format("{} {{ {}}}", name, text), deepest_origin(path));
      return;
    }
    add(depth, name + " {", path);
    write(message, path, depth + 1);
    lines_.push_back({false, std::string(2 * depth, ' ') + "}", ""});
  }

  /// A block of defaults may hold one value that a person said elsewhere: that one counts.
  [[nodiscard]] std::string deepest_origin(const std::string& path) const {
    const auto inside = path + ".";
    for (auto it = draft_.origins.lower_bound(inside);
         it != draft_.origins.end() && it->first.starts_with(inside); ++it) {
      if (is_explicit(it->second))
        return it->first;
    }
    return path;
  }

  const triton_draft& draft_;
  pb::TextFormat::Printer one_line_;
  std::vector<config_line> lines_;
};

} // namespace

std::vector<config_line> lines_of(const triton_draft& draft) {
  line_writer writer{draft};
  writer.write(draft.message, "", 0);
  return writer.take();
}

} // namespace troupe::config
