#include "actors/cli/secret.hpp"

#include "actors/cli/commands.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/random.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace troupe::cli {

namespace {

constexpr std::size_t secret_bytes = 32;

error failure(const std::filesystem::path& file, const char* what) {
  return {errc::io_failure,
          fmt::format("the secret {} cannot be {}: {}", file.string(), what, std::strerror(errno))};
}

} // namespace

result<void> make_secret(const std::filesystem::path& file) {
  std::array<std::uint8_t, secret_bytes> bytes{};
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    return fail(failure(file, "drawn"));
  std::string text;
  for (const auto byte : bytes)
    text += fmt::format("{:02x}", byte);
  text += '\n';
  // With the mode from its first moment on, and never over another secret.
  const int to = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (to < 0 && errno == EEXIST)
    return fail(errc::conflict,
                fmt::format("{} exists already and is left as it is; remove it first to draw a new "
                            "secret, and give that to all nodes",
                            file.string()));
  if (to < 0)
    return fail(failure(file, "made"));
  const bool written = ::write(to, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  auto why = failure(file, "written");
  const bool closed = ::close(to) == 0;
  if (written && closed)
    return {};
  ::unlink(file.c_str());
  return fail(std::move(why));
}

int run_secret(const secret_options& o) {
  if (const auto made = make_secret(o.file); !made) {
    std::fprintf(stderr, "troupe secret: %s\n", made.error().note.c_str());
    return failed;
  }
  std::printf("made %s (mode 600): copy it to every node of the cluster, over a channel that "
              "nobody reads\n",
              o.file.c_str());
  return good;
}

} // namespace troupe::cli
