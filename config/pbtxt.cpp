#include <fmt/core.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <vector>

#include "config/text.hpp"
#include "config/triton_draft.hpp"

namespace troupe::config {

namespace {

namespace pb = google::protobuf;
using info_tree = pb::TextFormat::ParseInfoTree;

constexpr int most_elements = 1024;
constexpr int deepest = 64;

/// The first quoted word after `before`, or "".
std::string_view quoted_after(std::string_view text, std::string_view before) {
  const auto at = text.find(before);
  const auto begin = at == std::string_view::npos ? at : text.find('"', at + before.size() - 1);
  const auto end = begin == std::string_view::npos ? begin : text.find('"', begin + 1);
  return end == std::string_view::npos ? std::string_view{}
                                       : text.substr(begin + 1, end - begin - 1);
}

/// What protobuf complains about, with the nearest name where a field or a value is unknown.
std::string with_mend(const std::string& message) {
  const auto type_name = quoted_after(message, "Message type \"");
  const auto field_name = quoted_after(message, "has no field named \"");
  const auto* pool = pb::DescriptorPool::generated_pool();
  std::vector<std::string_view> names;
  if (!field_name.empty()) {
    const auto* type = pool->FindMessageTypeByName(std::string{type_name});
    for (int i = 0; type != nullptr && i < type->field_count(); ++i)
      names.push_back(type->field(i)->name());
    const auto dot = type_name.rfind('.');
    return fmt::format("unknown field {} of {}{}", in_quotes(field_name),
                       type_name.substr(dot == std::string_view::npos ? 0 : dot + 1),
                       did_you_mean(field_name, names));
  }
  const auto value = quoted_after(message, "Unknown enumeration value of \"");
  if (value.empty())
    return message;
  const auto* type = inference::DataType_descriptor();
  if (quoted_after(message, "for field \"") == "kind")
    type = inference::ModelInstanceGroup_Kind_descriptor();
  for (int i = 0; i < type->value_count(); ++i)
    names.push_back(type->value(i)->name());
  return fmt::format("unknown value {} of {}{}", in_quotes(value),
                     in_quotes(quoted_after(message, "for field \"")), did_you_mean(value, names));
}

class error_lines : public pb::io::ErrorCollector {
public:
  error_lines(std::string_view text, const std::string& file, diagnostic_sink& sink)
      : text_{text}, file_{file}, sink_{sink} {}

  void AddError(int line, pb::io::ColumnNumber column, const std::string& message) override {
    for (const auto* before :
         {"has no field named \"", "Unknown enumeration value of \"", "Non-repeated field \""})
      column = step_back(line, column, quoted_after(message, before));
    // -1 is protobuf's way to say that the text as a whole is meant.
    const auto from_one = [](int n) { return static_cast<std::uint32_t>(std::max(n, 0) + 1); };
    sink_.error(errc::invalid_argument,
                {origin_kind::user_file, file_, from_one(line), {}, from_one(column)}, "",
                with_mend(message));
  }

private:
  /// protobuf points behind a word that it complains about; people look for its begin.
  [[nodiscard]] int step_back(int line, int column, std::string_view word) const {
    std::size_t begin = 0;
    for (int i = 0; i < line && begin != std::string_view::npos; ++i)
      begin = text_.find('\n', begin) == std::string_view::npos ? std::string_view::npos
                                                                : text_.find('\n', begin) + 1;
    if (word.empty() || column < 0 || begin >= text_.size())
      return column;
    const auto behind = text_.substr(begin, static_cast<std::size_t>(column));
    const auto end = behind.find_last_not_of(" \t") + 1;
    return behind.substr(0, end).ends_with(word) ? static_cast<int>(end - word.size()) : column;
  }

  std::string_view text_;
  const std::string& file_;
  diagnostic_sink& sink_;
};

/// Walks the message beside the places of its fields.
class place_recorder {
public:
  place_recorder(triton_draft& draft, diagnostic_sink& sink) : draft_{draft}, sink_{sink} {}

  void record(const pb::Message& message, const info_tree& tree, const std::string& path) {
    const auto& type = *message.GetDescriptor();
    for (int i = 0; i < type.field_count() && !sink_.full(); ++i) {
      const auto& field = *type.field(i);
      const auto name = path.empty() ? field.name() : path + "." + field.name();
      if (field.is_repeated())
        record_list(message, tree, field, name);
      else
        record_one(message, tree, field, name, -1);
    }
  }

private:
  void record_list(const pb::Message& message, const info_tree& tree,
                   const pb::FieldDescriptor& field, const std::string& name) {
    const int size = message.GetReflection()->FieldSize(message, &field);
    if (size > most_elements) {
      sink_.error(errc::limit_exceeded, place(tree, field, most_elements), name,
                  fmt::format("has {} elements; at most {} are read", size, most_elements));
      return;
    }
    for (int i = 0; i < size && !sink_.full(); ++i) {
      if (field.is_map())
        record_entry(message, tree, field, name, i);
      else if (field.cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE)
        record_one(message, tree, field, element_path(name, static_cast<std::size_t>(i)), i);
      else
        record_one(message, tree, field, name, i);
    }
  }

  void record_entry(const pb::Message& message, const info_tree& tree,
                    const pb::FieldDescriptor& field, const std::string& name, int index) {
    const auto& entry = message.GetReflection()->GetRepeatedMessage(message, &field, index);
    const auto& key_field = *entry.GetDescriptor()->map_key();
    std::string key;
    if (key_field.cpp_type() == pb::FieldDescriptor::CPPTYPE_STRING)
      key = entry.GetReflection()->GetString(entry, &key_field);
    else
      pb::TextFormat::PrintFieldValueToString(entry, &key_field, -1, &key);
    const auto path = element_path(name, key);
    const auto at = place(tree, field, index);
    if (!draft_.origins.emplace(path, at).second)
      sink_.error(errc::conflict, at, path,
                  fmt::format("is given twice, first at line {}; remove one",
                              draft_.origins.at(path).line));
    check_text(key, at, path);
    const auto* nested = tree.GetTreeForNested(&field, index);
    if (nested != nullptr)
      record_one(entry, *nested, *entry.GetDescriptor()->map_value(), path + ".value", -1);
  }

  void record_one(const pb::Message& message, const info_tree& tree,
                  const pb::FieldDescriptor& field, const std::string& path, int index) {
    const auto& r = *message.GetReflection();
    const auto at = place(tree, field, index);
    if (at.line == 0)
      return;
    draft_.origins.emplace(path, at);
    if (field.cpp_type() == pb::FieldDescriptor::CPPTYPE_STRING)
      check_text(index < 0 ? r.GetString(message, &field)
                           : r.GetRepeatedString(message, &field, index),
                 at, path);
    if (field.cpp_type() != pb::FieldDescriptor::CPPTYPE_MESSAGE)
      return;
    const auto* nested = tree.GetTreeForNested(&field, index);
    if (nested != nullptr)
      record(index < 0 ? r.GetMessage(message, &field)
                       : r.GetRepeatedMessage(message, &field, index),
             *nested, path);
  }

  void check_text(const std::string& text, const origin& at, const std::string& path) {
    if (!is_utf8(text) || text.find('\0') != std::string::npos)
      sink_.error(errc::invalid_argument, at, path, "is not UTF-8 without NUL; mend its bytes");
  }

  [[nodiscard]] origin place(const info_tree& tree, const pb::FieldDescriptor& field,
                             int index) const {
    const auto at = tree.GetLocation(&field, index);
    if (at.line < 0)
      return {origin_kind::user_file, draft_.file, 0, {}};
    return {origin_kind::user_file,
            draft_.file,
            static_cast<std::uint32_t>(at.line) + 1,
            {},
            static_cast<std::uint32_t>(at.column) + 1};
  }

  triton_draft& draft_;
  diagnostic_sink& sink_;
};

} // namespace

std::string element_path(std::string_view path, std::size_t index) {
  return fmt::format("{}[{}]", path, index);
}

std::string element_path(std::string_view path, std::string_view key) {
  return fmt::format("{}[\"{}\"]", path, key);
}

origin triton_draft::from(const std::string& path) const {
  const auto found = origins.find(path);
  return found == origins.end() ? origin{} : found->second;
}

origin triton_draft::place(const std::string& path) const {
  const auto found = origins.find(path);
  return found != origins.end() && is_explicit(found->second)
             ? found->second
             : origin{origin_kind::user_file, file, 0, {}};
}

std::optional<triton_draft> parse_pbtxt(std::string_view text, const std::string& file,
                                        diagnostic_sink& sink) {
  const auto before = sink.error_count();
  triton_draft draft;
  draft.file = file;
  error_lines errors{text, draft.file, sink};
  info_tree tree;
  pb::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  parser.WriteLocationsTo(&tree);
  parser.SetRecursionLimit(deepest);
  const bool good = parser.ParseFromString(std::string{text}, &draft.message);
  if (!good && sink.error_count() == before)
    sink.error(errc::invalid_argument, {origin_kind::user_file, file, 1, {}}, "",
               "is not protobuf's text format");
  if (!good)
    return std::nullopt;
  place_recorder{draft, sink}.record(draft.message, tree, "");
  return sink.error_count() == before ? std::optional{std::move(draft)} : std::nullopt;
}

} // namespace troupe::config
