#include "config/files.hpp"

#include <fmt/core.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "config/text.hpp"

namespace troupe::config {

result<std::string> read_file(const std::filesystem::path& file, std::size_t most_bytes) {
  std::error_code ec;
  const auto status = std::filesystem::status(file, ec);
  if (status.type() == std::filesystem::file_type::not_found)
    return fail(errc::not_found, "there is no such file");
  if (ec)
    return fail(errc::io_failure, fmt::format("cannot be read: {}", ec.message()));
  if (status.type() != std::filesystem::file_type::regular)
    return fail(errc::io_failure, "is not a regular file");
  std::ifstream in{file, std::ios::binary};
  if (!in)
    return fail(errc::io_failure, fmt::format("cannot be opened: {}", std::strerror(errno)));
  // Read in pieces, so that memory follows the file's size, even of one that grows meanwhile.
  std::string text;
  char piece[16'384];
  while (in.read(piece, sizeof piece), in.gcount() > 0) {
    text.append(piece, static_cast<std::size_t>(in.gcount()));
    if (text.size() > most_bytes)
      return fail(errc::limit_exceeded, fmt::format("is larger than {} bytes", most_bytes));
  }
  if (in.bad())
    return fail(errc::io_failure, "cannot be read to its end");
  return text;
}

std::optional<json_value> read_json(const std::filesystem::path& file, origin_kind kind,
                                    diagnostic_sink& sink) {
  const auto text = read_file(file, json_limits{}.bytes);
  if (!text) {
    sink.error(text.error().code, {kind, file.string(), 0, {}}, "", text.error().note);
    return std::nullopt;
  }
  auto source = std::make_shared<const json_source>(json_source{kind, file.string(), {}});
  return parse_json(*text, std::move(source), sink);
}

std::optional<std::filesystem::path> as_secret_path(const field& f) {
  auto path = as_path(f);
  if (!path)
    return std::nullopt;
  struct stat info {};
  if (::stat(path->c_str(), &info) != 0)
    return f.wrong(fmt::format("{}: {}", in_quotes(path->string()), std::strerror(errno)),
                   errno == ENOENT ? errc::not_found : errc::io_failure);
  if (!S_ISREG(info.st_mode))
    return f.wrong(fmt::format("{} is not a regular file", in_quotes(path->string())),
                   errc::io_failure);
  if ((info.st_mode & 077U) != 0)
    return f.wrong(fmt::format("{} has mode {:03o}, so others may read it; run: chmod 600 {}",
                               in_quotes(path->string()), info.st_mode & 0777U, path->string()),
                   errc::unauthorized);
  return path;
}

std::optional<std::filesystem::path> as_cluster_secret(const field& f, bool may_be_missing) {
  constexpr std::size_t secret_bytes_min = 16;
  constexpr std::size_t secret_bytes_max = 1U << 16U;
  const auto named = as_path(f);
  std::error_code ec;
  if (named && std::filesystem::status(*named, ec).type() == std::filesystem::file_type::not_found)
    return may_be_missing
               ? named
               : f.wrong(
                     fmt::format("there is no file {}; make it once with `troupe secret {}` and "
                                 "copy it to every node",
                                 in_quotes(named->string()), named->string()),
                     errc::not_found);
  auto path = as_secret_path(f);
  if (!path)
    return std::nullopt;
  auto text = read_file(*path, secret_bytes_max);
  if (!text)
    return f.wrong(fmt::format("{} {}", in_quotes(path->string()), text.error().note),
                   text.error().code);
  while (!text->empty() && (text->back() == '\n' || text->back() == '\r'))
    text->pop_back();
  if (text->size() < secret_bytes_min)
    return f.wrong(
        fmt::format("{} holds {} bytes; a secret has {} at least: remove it and make one "
                    "with `troupe secret {}`",
                    in_quotes(path->string()), text->size(), secret_bytes_min, path->string()));
  return path;
}

} // namespace troupe::config
