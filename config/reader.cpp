#include "config/reader.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "config/text.hpp"

namespace troupe::config {

namespace {

bool unquoted_source(const json_value& v) {
  return v.source && (v.source->kind == origin_kind::command_line ||
                      v.source->kind == origin_kind::environment);
}

std::string got(const json_value& v) { return to_text(v); }

} // namespace

std::string number_text(double n) {
  const bool whole = std::abs(n) < 1e15 && n == std::floor(n);
  return whole ? fmt::format("{}", static_cast<std::int64_t>(n)) : fmt::format("{}", n);
}

std::nullopt_t field::wrong(std::string message, errc code) const {
  sink.error(code, value.from(), path, std::move(message));
  return std::nullopt;
}

std::optional<bool> as_bool(const field& f) {
  if (f.value.kind != json_kind::boolean)
    return f.wrong(fmt::format("must be true or false, not {}", got(f.value)));
  return f.value.truth;
}

std::optional<std::string> as_string(const field& f) {
  const auto kind = f.value.kind;
  if (kind == json_kind::string)
    return f.value.text;
  if (unquoted_source(f.value) && (kind == json_kind::integer || kind == json_kind::real))
    return f.value.text;
  if (unquoted_source(f.value) && kind == json_kind::boolean)
    return f.value.truth ? "true" : "false";
  return f.wrong(fmt::format("must be a string in quotes, not {}", got(f.value)));
}

std::optional<std::string> as_name(const field& f) {
  auto name = as_string(f);
  if (!name)
    return std::nullopt;
  const auto bad = [](char c) {
    return static_cast<unsigned char>(c) <= 0x20 || c == 0x7F || c == '"' || c == '/' || c == '\\';
  };
  if (name->empty() || name->size() > 128 || std::any_of(name->begin(), name->end(), bad))
    return f.wrong(
        fmt::format("{} is not a name; use 1 to 128 characters without spaces, quotes and slashes",
                    in_quotes(*name)));
  return name;
}

std::optional<std::int64_t> as_integer(const field& f, std::int64_t least, std::int64_t most) {
  const auto& v = f.value;
  if (v.kind != json_kind::integer)
    return f.wrong(fmt::format("must be an integer from {} to {} (without point or exponent), "
                               "not {}",
                               least, most, got(v)));
  std::int64_t n = 0;
  const auto* end = v.text.data() + v.text.size();
  const auto parsed = std::from_chars(v.text.data(), end, n);
  if (parsed.ec != std::errc{} || parsed.ptr != end || n < least || n > most)
    return f.wrong(fmt::format("must be from {} to {}, not {}", least, most, in_quotes(v.text)));
  return n;
}

std::optional<double> as_number(const field& f, double least, double most) {
  const auto& v = f.value;
  if (v.kind != json_kind::integer && v.kind != json_kind::real)
    return f.wrong(fmt::format("must be a number from {} to {}, not {}", number_text(least),
                               number_text(most), got(v)));
  if (!std::isfinite(v.number) || v.number < least || v.number > most)
    return f.wrong(fmt::format("must be from {} to {}, not {}", number_text(least),
                               number_text(most), in_quotes(v.text)));
  return v.number;
}

std::filesystem::path resolve(std::string_view path, const origin& from) {
  const std::filesystem::path named{path};
  const bool in_file = from.kind == origin_kind::user_file || from.kind == origin_kind::model_file;
  if (named.is_absolute() || !in_file)
    return named.lexically_normal();
  return (std::filesystem::path{from.file}.parent_path() / named).lexically_normal();
}

std::optional<std::filesystem::path> as_path(const field& f) {
  const auto text = as_string(f);
  if (!text)
    return std::nullopt;
  if (text->empty() || text->size() > 4096 || text->find('\0') != std::string::npos)
    return f.wrong(fmt::format("{} is not a path", in_quotes(*text)));
  return resolve(*text, f.value.from());
}

std::optional<std::chrono::milliseconds> as_seconds(const field& f) {
  const auto seconds = as_number(f, 0.001, 86'400.0);
  if (!seconds)
    return std::nullopt;
  return std::chrono::milliseconds{static_cast<std::int64_t>(*seconds * 1000.0 + 0.5)};
}

bool is_host(std::string_view text) noexcept {
  const auto allowed = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '-' || c == ':' || c == '_' || c == '%';
  };
  return !text.empty() && text.size() <= 253 && std::all_of(text.begin(), text.end(), allowed);
}

std::optional<std::string> as_host(const field& f) {
  auto host = as_string(f);
  if (host && !is_host(*host))
    return f.wrong(fmt::format("{} is not a host; write a name or an address such as 127.0.0.1",
                               in_quotes(*host)));
  return host;
}

std::optional<std::size_t> as_choice(const field& f, const std::vector<std::string_view>& names) {
  const auto text = as_string(f);
  if (!text)
    return std::nullopt;
  const auto at = std::find(names.begin(), names.end(), *text);
  if (at == names.end())
    return f.wrong(fmt::format("must be {}, not {}{}", choices(names), in_quotes(*text),
                               did_you_mean(*text, names)));
  return static_cast<std::size_t>(at - names.begin());
}

std::string join_path(std::string_view path, std::string_view key) {
  const bool plain = key.size() <= 64 && std::none_of(key.begin(), key.end(), [](char c) {
                       return c == '.' || static_cast<unsigned char>(c) <= 0x20 || c == '"';
                     });
  std::string shown{key};
  if (!plain) {
    shown = in_quotes(key);
    shown.front() = shown.back() = '"';
  }
  return path.empty() ? shown : fmt::format("{}.{}", path, shown);
}

object_reader::object_reader(const json_value& object, std::string path, diagnostic_sink& sink)
    : object_{&object}, path_{std::move(path)}, sink_{&sink} {
  if (object.kind != json_kind::object)
    sink.error(errc::invalid_argument, object.from(), path_,
               fmt::format("must be an object in braces, not {}", got(object)));
}

const json_value* object_reader::find(std::string_view name) {
  accept(name);
  const auto* value = object_->find(name);
  return value == nullptr || value->kind == json_kind::null ? nullptr : value;
}

bool object_reader::has(std::string_view name) const {
  const auto* value = object_->find(name);
  return value != nullptr && value->kind != json_kind::null;
}

field object_reader::at(std::string_view name, const json_value& value) const {
  return {value, path_of(name), *sink_};
}

std::string object_reader::path_of(std::string_view name) const { return join_path(path_, name); }

void object_reader::refuse_unknown() {
  for (const auto& m : object_->members) {
    if (sink_->full())
      return;
    if (std::find(known_.begin(), known_.end(), m.key) != known_.end())
      continue;
    auto at = m.value.from();
    at.line = m.line == 0 ? at.line : m.line;
    std::vector<std::string_view> others;
    for (const auto name : known_) {
      if (object_->find(name) == nullptr)
        others.push_back(name);
    }
    sink_->error(errc::invalid_argument, at, path_of(m.key),
                 fmt::format("unknown key {}{}", in_quotes(m.key), did_you_mean(m.key, others)));
  }
}

} // namespace troupe::config
