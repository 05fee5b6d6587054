#include "actors/cli/output.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace troupe::cli {

void open_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) >= 0)
      continue;
    // The lowest free number is this stream's; the wrong direction keeps its use an error.
    const int opened = open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    if (opened < 0)
      return;
  }
}

result<void> write_out(std::FILE* out, std::string_view text) {
  const bool broken = std::ferror(out) != 0;
  errno = 0;
  const bool written = text.empty() || std::fwrite(text.data(), 1, text.size(), out) == text.size();
  const bool flushed = std::fflush(out) == 0;
  if (written && flushed && !broken)
    return {};
  const int why = errno;
  return fail(errc::io_failure,
              fmt::format("cannot write {}{}{}; free some room, or send it elsewhere",
                          out == stdout ? "to standard output" : "the output", why == 0 ? "" : ": ",
                          why == 0 ? "" : std::strerror(why)));
}

} // namespace troupe::cli
