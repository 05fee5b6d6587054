#include "tests/bench/stage_clock.hpp"
#include "tests/bench/stage_parts.hpp"

#include "proto/kserve.grpc.pb.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string_view>
#include <thread>

namespace stage {

namespace {

using inference::GRPCInferenceService;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;

using connection = std::unique_ptr<GRPCInferenceService::Stub>;

/// Each a connection of its own.
connection connect_grpc(int port, int number) {
  ::grpc::ChannelArguments own;
  own.SetInt("bench.number", number);
  own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return GRPCInferenceService::NewStub(::grpc::CreateCustomChannel(
      fmt::format("127.0.0.1:{}", port), ::grpc::InsecureChannelCredentials(), own));
}

void add_text(ModelInferRequest& request, const char* name, const std::string& text) {
  auto& input = *request.add_inputs();
  input.set_name(name);
  input.set_datatype("BYTES");
  input.add_shape(1);
  const auto size = static_cast<std::uint32_t>(text.size());
  std::string data(sizeof size, '\0');
  std::memcpy(data.data(), &size, sizeof size);
  request.add_raw_input_contents(data + text);
}

ModelInferRequest text_request(int tokens, int number) {
  ModelInferRequest request;
  request.set_model_name("bard");
  request.set_id(std::to_string(tokens));
  add_text(request, "text_input", fmt::format("{} ROMEO:", number));
  add_text(request, "sampling_parameters",
           fmt::format(R"({{"max_tokens": {}, "ignore_eos": true, "temperature": 0}})", tokens));
  auto& stream = *request.add_inputs();
  stream.set_name("stream");
  stream.set_datatype("BOOL");
  stream.add_shape(1);
  request.add_raw_input_contents("\1");
  return request;
}

std::uint64_t read_stream(GRPCInferenceService::Stub& stub, const ModelInferRequest& request,
                          std::string* keep) {
  ::grpc::ClientContext context;
  auto stream = stub.ModelStreamInfer(&context);
  stream->Write(request);
  stream->WritesDone();
  std::uint64_t count = 0;
  ModelStreamInferResponse message;
  while (stream->Read(&message)) {
    if (!message.error_message().empty())
      give_up(message.error_message());
    if (keep != nullptr && count == 1)
      *keep = message.SerializeAsString();
    ++count;
  }
  if (const auto status = stream->Finish(); !status.ok())
    give_up(status.error_message());
  return count;
}

int connect_http(int port) {
  const int link = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(static_cast<std::uint16_t>(port));
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int on = 1;
  ::setsockopt(link, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(link, reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0)
    give_up("no connection to the HTTP edge");
  return link;
}

std::string event_request(int tokens, int number, const char* link) {
  const auto body = fmt::format(R"({{"text_input": "{} ROMEO:", "stream": true, "max_tokens": {}, )"
                                R"("ignore_eos": true, "temperature": 0}})",
                                number, tokens);
  return fmt::format(
      "POST /v2/models/bard/generate_stream HTTP/1.1\r\nHost: x\r\nConnection: {}\r\n"
      "Content-Length: {}\r\n\r\n{}",
      link, body.size(), body);
}

void send_all(int link, std::string_view text) {
  if (::send(link, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size()))
    give_up("the HTTP edge takes no request");
}

/// Counts events by their ends.
std::uint64_t ends_in(std::string_view bytes, char& before) {
  std::uint64_t count = 0;
  for (const char c : bytes) {
    count += c == '\n' && before == '\n' ? 1 : 0;
    before = c;
  }
  return count;
}

} // namespace

void give_up(const std::string& why) {
  std::fprintf(stderr, "bench_stage: %s\n", why.c_str());
  std::exit(1);
}

void run_on(const cpu_range& cpus) {
  if (cpus.last < 0)
    return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu = cpus.first; cpu <= cpus.last; ++cpu)
    CPU_SET(static_cast<std::size_t>(cpu), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0)
    give_up("no such CPUs");
}

process::process(const std::vector<std::string>& command, const std::string& preload,
                 const std::string& ready, const cpu_range& cpus) {
  int ends[2];
  if (pipe(ends) != 0)
    give_up("no pipe");
  pid_ = fork();
  if (pid_ == 0) {
    run_on(cpus);
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    if (!preload.empty())
      setenv("LD_PRELOAD", preload.c_str(), 1);
    std::vector<char*> raw;
    for (const auto& one : command)
      raw.push_back(const_cast<char*>(one.c_str()));
    raw.push_back(nullptr);
    execv(raw[0], raw.data());
    _exit(127);
  }
  close(ends[1]);
  out_ = ends[0];
  char c = 0;
  std::string line;
  while (::read(out_, &c, 1) == 1) {
    said_ += c;
    if (c != '\n') {
      line += c;
      continue;
    }
    if (line.rfind(ready, 0) == 0)
      return;
    line.clear();
  }
  give_up(command[0] + " did not become ready: " + said_);
}

process::~process() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  ::close(out_);
}

int process::port(const std::string& scheme) const {
  const auto at = said_.find(scheme + "://");
  const auto colon = at == std::string::npos ? at : said_.find(':', at + scheme.size() + 3);
  if (colon == std::string::npos)
    give_up("no address of " + scheme + " in: " + said_);
  return std::atoi(said_.c_str() + colon + 1);
}

double process::cpu_s() const {
  clockid_t clock{};
  timespec used{};
  if (clock_getcpuclockid(pid_, &clock) != 0 || clock_gettime(clock, &used) != 0)
    give_up("the CPU time of a process cannot be read");
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

double tree_cpu_s(pid_t root) {
  std::map<pid_t, std::pair<pid_t, double>> all;
  for (const auto& entry : std::filesystem::directory_iterator{"/proc"}) {
    const auto pid = static_cast<pid_t>(std::atoi(entry.path().filename().c_str()));
    std::ifstream file{entry.path() / "stat"};
    std::string line;
    if (pid == 0 || !std::getline(file, line))
      continue;
    int parent = 0;
    unsigned long user = 0;
    unsigned long system = 0;
    // Behind the name, which may hold anything.
    if (std::sscanf(line.c_str() + line.rfind(')') + 1,
                    " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &parent, &user,
                    &system) == 3)
      all[pid] = {parent, static_cast<double>(user + system)};
  }
  double ticks = 0;
  for (const auto& [pid, one] : all) {
    auto at = pid;
    while (at != root && all.contains(at))
      at = all[at].first;
    ticks += at == root ? one.second : 0;
  }
  return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

stream_run run_streams(int grpc_port, int tokens) {
  constexpr int connections = 4;
  std::vector<connection> stubs;
  for (int i = 0; i < connections; ++i)
    stubs.push_back(connect_grpc(grpc_port, i));
  std::atomic<std::uint64_t> messages{0};
  std::vector<std::thread> threads;
  const auto begin = steady::now();
  for (int i = 0; i < streams; ++i)
    threads.emplace_back([&, i] {
      messages += read_stream(*stubs[static_cast<std::size_t>(i % connections)],
                              text_request(tokens, i), nullptr);
    });
  for (auto& t : threads)
    t.join();
  return {messages, std::chrono::duration<double>(steady::now() - begin).count()};
}

std::string one_message(int grpc_port) {
  std::string kept;
  (void)read_stream(*connect_grpc(grpc_port, 0), text_request(4, 0), &kept);
  return kept;
}

stream_run run_events(int http_port, int tokens) {
  std::vector<pollfd> links;
  std::vector<char> before(streams, 0);
  const auto begin = steady::now();
  for (int i = 0; i < streams; ++i) {
    links.push_back({connect_http(http_port), POLLIN, 0});
    send_all(links.back().fd, event_request(tokens, i, "close"));
  }
  stream_run made;
  std::vector<char> bytes(1 << 16);
  for (int open = streams; open > 0;) {
    ::poll(links.data(), links.size(), -1);
    for (std::size_t i = 0; i < links.size(); ++i) {
      if (links[i].fd < 0 || links[i].revents == 0)
        continue;
      const auto got = ::recv(links[i].fd, bytes.data(), bytes.size(), 0);
      if (got > 0) {
        made.messages += ends_in({bytes.data(), static_cast<std::size_t>(got)}, before[i]);
        continue;
      }
      ::close(links[i].fd);
      links[i].fd = -1;
      --open;
    }
  }
  made.seconds = std::chrono::duration<double>(steady::now() - begin).count();
  return made;
}

double run_echo(int grpc_port, const std::string& model, int clients, int requests) {
  constexpr std::size_t bytes = 1024;
  std::vector<std::thread> threads;
  std::vector<connection> stubs;
  for (int i = 0; i < clients; ++i)
    stubs.push_back(connect_grpc(grpc_port, i));
  const auto work = [&](GRPCInferenceService::Stub& stub) {
    ModelInferRequest request;
    request.set_model_name(model);
    auto& input = *request.add_inputs();
    input.set_name("INPUT0");
    input.set_datatype("UINT8");
    input.add_shape(bytes);
    request.add_raw_input_contents(std::string(bytes, 'x'));
    for (int i = 0; i < requests; ++i) {
      ::grpc::ClientContext context;
      ModelInferResponse answer;
      if (const auto status = stub.ModelInfer(&context, request, &answer); !status.ok())
        give_up(status.error_message());
      if (answer.raw_output_contents_size() != 1 || answer.raw_output_contents(0).size() != bytes)
        give_up("an echo that is none");
    }
  };
  const auto begin = steady::now();
  for (auto& stub : stubs)
    threads.emplace_back([&] { work(*stub); });
  for (auto& t : threads)
    t.join();
  return clients * requests / std::chrono::duration<double>(steady::now() - begin).count();
}

steady::time_point first_event(int http_port, steady::time_point& sent) {
  static int number = 1000;
  const int link = connect_http(http_port);
  sent = steady::now();
  send_all(link, event_request(3, ++number, "close"));
  std::string said;
  std::vector<char> bytes(1 << 12);
  steady::time_point first{};
  while (true) {
    const auto got = ::recv(link, bytes.data(), bytes.size(), 0);
    const auto now = steady::now();
    if (got <= 0)
      break;
    said.append(bytes.data(), static_cast<std::size_t>(got));
    if (first == steady::time_point{} && said.find("data: ") != std::string::npos)
      first = now;
  }
  ::close(link);
  if (first == steady::time_point{})
    give_up("no event: " + said);
  return first;
}

step_ends::step_ends() {
  const auto name = clock_prefix + std::to_string(getpid());
  const int file = shm_open(name.c_str(), O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, sizeof(clock_page)) != 0)
    give_up("no shared memory");
  memory_ = mmap(nullptr, sizeof(clock_page), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory_ == MAP_FAILED)
    give_up("no shared memory");
}

step_ends::~step_ends() {
  munmap(memory_, sizeof(clock_page));
  shm_unlink((clock_prefix + std::to_string(getpid())).c_str());
}

steady::time_point step_ends::first_after(steady::time_point when) const {
  const auto& page = *static_cast<const clock_page*>(memory_);
  const auto count = page.count.load();
  const auto first = count > clock_page::places ? count - clock_page::places : 0;
  for (auto i = first; i < count; ++i) {
    const steady::time_point at{std::chrono::nanoseconds{page.at_ns[i % clock_page::places]}};
    if (at >= when)
      return at;
  }
  return {};
}

} // namespace stage
