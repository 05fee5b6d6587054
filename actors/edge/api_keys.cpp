#include "actors/edge/api_keys.hpp"

#include <fmt/core.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <optional>
#include <sstream>

namespace troupe::actors {

namespace {

constexpr std::size_t max_file_bytes = 1U << 20U;

std::optional<std::array<std::uint8_t, 32>> from_hex(std::string_view hex) {
  std::array<std::uint8_t, 32> bytes{};
  if (hex.size() != 2 * bytes.size())
    return std::nullopt;
  for (std::size_t i = 0; i < hex.size(); ++i) {
    const auto c = static_cast<unsigned char>(hex[i]);
    if (std::isxdigit(c) == 0)
      return std::nullopt;
    const auto digit = std::isdigit(c) != 0 ? c - '0' : std::tolower(c) - 'a' + 10;
    bytes[i / 2] = static_cast<std::uint8_t>(bytes[i / 2] * 16 + digit);
  }
  return bytes;
}

std::string_view trim(std::string_view s) {
  const auto from = s.find_first_not_of(" \t\r");
  if (from == std::string_view::npos)
    return {};
  return s.substr(from, s.find_last_not_of(" \t\r") - from + 1);
}

bool same_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](unsigned char x, unsigned char y) {
           return std::tolower(x) == std::tolower(y);
         });
}

} // namespace

result<api_keys> api_keys::load(const std::filesystem::path& file) {
  std::ifstream in{file, std::ios::binary};
  if (!in)
    return fail(errc::io_failure, fmt::format("cannot read the API keys in {}; check the path and "
                                              "its permissions",
                                              file.string()));
  std::string text(max_file_bytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (text.size() > max_file_bytes)
    return fail(errc::corrupt_data,
                fmt::format("{} is larger than {} bytes", file.string(), max_file_bytes));
  return parse(text, file.string());
}

result<api_keys> api_keys::parse(std::string_view text, std::string_view file) {
  constexpr std::string_view mark = "sha256:";
  api_keys keys;
  for (std::size_t line = 1; !text.empty(); ++line) {
    const auto end = text.find('\n');
    const auto content = trim(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    if (content.empty() || content.front() == '#')
      continue;
    const auto word = content.substr(0, content.find_first_of(" \t"));
    const auto hash =
        word.substr(0, mark.size()) == mark ? from_hex(word.substr(mark.size())) : std::nullopt;
    if (!hash)
      return fail(errc::corrupt_data,
                  fmt::format("{}:{}: a key must be sha256:<64 hex digits> and a label; `printf %s "
                              "KEY | sha256sum` makes the digits",
                              file, line));
    keys.hashes_.push_back(*hash);
  }
  if (keys.hashes_.empty())
    return fail(errc::corrupt_data,
                fmt::format("{} holds no key, so nobody could get in; add a line "
                            "sha256:<64 hex digits> label",
                            file));
  return keys;
}

bool api_keys::allow(std::string_view authorization) const {
  constexpr std::string_view scheme = "Bearer ";
  if (!same_ignoring_case(authorization.substr(0, scheme.size()), scheme))
    return false;
  const auto key = trim(authorization.substr(scheme.size()));
  digest given{};
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), given.data());
  bool known = false;
  for (const auto& hash : hashes_)
    known = (CRYPTO_memcmp(hash.data(), given.data(), given.size()) == 0) || known;
  return known;
}

} // namespace troupe::actors
