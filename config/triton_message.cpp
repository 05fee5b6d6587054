#include "config/triton_message.hpp"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>
#include <nlohmann/json.hpp>

namespace troupe::config {

namespace {

namespace pb = google::protobuf;
using json = nlohmann::ordered_json;

json to_json_value(const pb::Message& message);

/// A field that is no message; `index` is -1 outside of lists.
json scalar(const pb::Message& message, const pb::FieldDescriptor& field, int index) {
  const auto& r = *message.GetReflection();
  const bool one = index < 0;
  switch (field.cpp_type()) {
  case pb::FieldDescriptor::CPPTYPE_INT32:
    return one ? r.GetInt32(message, &field) : r.GetRepeatedInt32(message, &field, index);
  case pb::FieldDescriptor::CPPTYPE_INT64:
    return one ? r.GetInt64(message, &field) : r.GetRepeatedInt64(message, &field, index);
  case pb::FieldDescriptor::CPPTYPE_UINT32:
    return one ? r.GetUInt32(message, &field) : r.GetRepeatedUInt32(message, &field, index);
  case pb::FieldDescriptor::CPPTYPE_UINT64:
    return one ? r.GetUInt64(message, &field) : r.GetRepeatedUInt64(message, &field, index);
  case pb::FieldDescriptor::CPPTYPE_DOUBLE:
    return one ? r.GetDouble(message, &field) : r.GetRepeatedDouble(message, &field, index);
  case pb::FieldDescriptor::CPPTYPE_FLOAT:
    return one ? r.GetFloat(message, &field) : r.GetRepeatedFloat(message, &field, index);
  case pb::FieldDescriptor::CPPTYPE_BOOL:
    return one ? r.GetBool(message, &field) : r.GetRepeatedBool(message, &field, index);
  case pb::FieldDescriptor::CPPTYPE_ENUM:
    return one ? r.GetEnum(message, &field)->name()
               : r.GetRepeatedEnum(message, &field, index)->name();
  case pb::FieldDescriptor::CPPTYPE_STRING:
    return one ? r.GetString(message, &field) : r.GetRepeatedString(message, &field, index);
  case pb::FieldDescriptor::CPPTYPE_MESSAGE:
    return to_json_value(one ? r.GetMessage(message, &field)
                             : r.GetRepeatedMessage(message, &field, index));
  }
  return nullptr;
}

/// A map's key as JSON writes it.
std::string key_text(const json& key) {
  return key.is_string() ? key.get<std::string>() : key.dump();
}

json map_of(const pb::Message& message, const pb::FieldDescriptor& field) {
  const auto& r = *message.GetReflection();
  std::map<std::string, json> sorted;
  for (int i = 0; i < r.FieldSize(message, &field); ++i) {
    const auto& entry = r.GetRepeatedMessage(message, &field, i);
    const auto& type = *entry.GetDescriptor();
    sorted.emplace(key_text(scalar(entry, *type.map_key(), -1)),
                   scalar(entry, *type.map_value(), -1));
  }
  auto all = json::object();
  for (auto& [key, value] : sorted)
    all[key] = std::move(value);
  return all;
}

json to_json_value(const pb::Message& message) {
  const auto& r = *message.GetReflection();
  const auto& type = *message.GetDescriptor();
  auto object = json::object();
  for (int i = 0; i < type.field_count(); ++i) {
    const auto& field = *type.field(i);
    const bool conditional =
        !field.is_repeated() && (field.cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE ||
                                 field.containing_oneof() != nullptr);
    if (field.is_map()) {
      object[field.name()] = map_of(message, field);
    } else if (field.is_repeated()) {
      auto& list = object[field.name()] = json::array();
      for (int k = 0; k < r.FieldSize(message, &field); ++k)
        list.push_back(scalar(message, field, k));
    } else if (!conditional || r.HasField(message, &field)) {
      object[field.name()] = scalar(message, field, -1);
    }
  }
  return object;
}

} // namespace

inference::ModelConfig to_message(const triton_model& model) {
  inference::ModelConfig message;
  (void)message.ParseFromString(model.message);
  return message;
}

std::string triton_model::to_json() const {
  return to_json_value(to_message(*this)).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string triton_model::to_text() const {
  std::string text;
  (void)google::protobuf::TextFormat::PrintToString(to_message(*this), &text);
  return text;
}

} // namespace troupe::config
