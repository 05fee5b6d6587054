#include "tests/bench/ucx_perftest.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <vector>

#include <unistd.h>

namespace troupe::bench {

namespace {

/// The standard output of a shell's command.
std::string output_of(const std::string& command) {
  std::string out;
  auto* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr)
    return out;
  std::array<char, 4096> part{};
  for (std::size_t got = 0; (got = std::fread(part.data(), 1, part.size(), pipe)) > 0;)
    out.append(part.data(), got);
  ::pclose(pipe);
  return out;
}

/// The line "Final:" holds iterations, three latencies, average and overall MiB/s, and two rates.
double overall_of(const std::string& said) {
  constexpr std::size_t overall_column = 5;
  const auto at = said.find("Final:");
  if (at == std::string::npos)
    return 0;
  std::istringstream line{said.substr(at + 6, said.find('\n', at) - at - 6)};
  std::vector<double> numbers;
  for (double x = 0; line >> x;)
    numbers.push_back(x);
  return numbers.size() > overall_column ? numbers[overall_column] * (1 << 20) / 1e6 : 0;
}

} // namespace

double ucx_megabytes(const std::string& lanes, std::size_t bytes, int messages) {
  static int port = 20000 + static_cast<int>(::getpid() % 20000);
  ++port;
  const auto settings = "UCX_TLS=" + lanes +
                        " UCX_NET_DEVICES=lo UCX_POSIX_ERROR_HANDLING=y "
                        "UCX_CMA_MEMORY_INVALIDATE=y UCX_WARN_UNUSED_ENV_VARS=n timeout 20 ";
  const auto test = "ucx_perftest -p " + std::to_string(port);
  const auto what = " -t ucp_am_bw -e -s " + std::to_string(bytes) + " -n " +
                    std::to_string(messages) + " -w " + std::to_string(messages / 10);
  return overall_of(output_of("command -v ucx_perftest >/dev/null || exit 0; " + settings + test +
                              " >/dev/null 2>&1 & sleep 0.3; " + settings + test + " 127.0.0.1" +
                              what + " 2>/dev/null; wait"));
}

} // namespace troupe::bench
