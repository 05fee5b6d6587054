#include "engine/text/json_view.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

namespace troupe::engine::text {

result<json_view> json_view::child(std::string_view key) const {
  if (!value_->is_object())
    return expected("an object");
  const auto found = value_->find(std::string{key});
  if (found == value_->end())
    return refuse(errc::invalid_argument, fmt::format("has no member \"{}\"", key));
  return json_view{*found, file_, fmt::format("{}.{}", path_, key), depth_ + 1};
}

std::optional<json_view> json_view::find(std::string_view key) const {
  if (!value_->is_object())
    return std::nullopt;
  const auto found = value_->find(std::string{key});
  if (found == value_->end() || found->is_null())
    return std::nullopt;
  return json_view{*found, file_, fmt::format("{}.{}", path_, key), depth_ + 1};
}

result<std::vector<json_view>> json_view::elements() const {
  if (!value_->is_array())
    return expected("an array");
  std::vector<json_view> views;
  views.reserve(value_->size());
  for (std::size_t i = 0; i < value_->size(); ++i)
    views.push_back(json_view{(*value_)[i], file_, fmt::format("{}[{}]", path_, i), depth_ + 1});
  return views;
}

result<std::string> json_view::text() const {
  if (!value_->is_string())
    return expected("a string");
  return value_->get_ref<const std::string&>();
}

result<std::uint64_t> json_view::natural(std::uint64_t max) const {
  if (!value_->is_number_unsigned() || value_->get<std::uint64_t>() > max)
    return expected(fmt::format("an integer from 0 to {}", max));
  return value_->get<std::uint64_t>();
}

result<std::string> json_view::text(std::string_view key) const {
  const auto member = child(key);
  if (!member)
    return fail(member.error());
  return member->text();
}

result<bool> json_view::flag(std::string_view key, bool absent) const {
  const auto member = find(key);
  if (!member)
    return absent;
  if (!member->value().is_boolean())
    return member->expected("true or false");
  return member->value().get<bool>();
}

tl::unexpected<error> json_view::refuse(errc code, std::string_view what) const {
  return fail(code, fmt::format("{}: {}: {}", file_, path_, what));
}

tl::unexpected<error> json_view::expected(std::string_view what) const {
  constexpr std::size_t shown_bytes = 40;
  std::string shown = value_->type_name();
  if (value_->is_primitive() && !value_->is_null()) {
    using handler = nlohmann::json::error_handler_t;
    shown = value_->dump(-1, ' ', true, handler::replace);
    if (shown.size() > shown_bytes)
      shown = shown.substr(0, shown_bytes) + "...";
  }
  return refuse(errc::invalid_argument, fmt::format("must be {}, but is {}", what, shown));
}

result<std::string> read_text_file(const std::filesystem::path& path, std::size_t max_bytes) {
  std::error_code code;
  if (!std::filesystem::exists(path, code))
    return fail(errc::not_found, fmt::format("{}: there is no such file", path.string()));
  if (!std::filesystem::is_regular_file(path, code))
    return fail(errc::io_failure, fmt::format("{}: is not a regular file", path.string()));
  std::ifstream file{path, std::ios::binary};
  const auto size = std::filesystem::file_size(path, code);
  if (!file || code)
    return fail(errc::io_failure,
                fmt::format("{}: cannot be read: {}", path.string(), std::strerror(errno)));
  if (size > max_bytes)
    return fail(errc::limit_exceeded, fmt::format("{}: has {} bytes; at most {} are read",
                                                  path.string(), size, max_bytes));
  std::string text(size, '\0');
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (static_cast<std::uintmax_t>(file.gcount()) != size)
    return fail(errc::io_failure, fmt::format("{}: ended while it was read", path.string()));
  return text;
}

result<nlohmann::json> parse_json(std::string_view text, std::string_view file) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& e) {
    return fail(errc::corrupt_data, fmt::format("{}: is not valid JSON: {}", file, e.what()));
  }
}

} // namespace troupe::engine::text
