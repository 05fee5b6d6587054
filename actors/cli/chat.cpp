#include "actors/cli/arguments.hpp"
#include "actors/cli/commands.hpp"
#include "actors/cli/generation.hpp"
#include "actors/cli/output.hpp"
#include "actors/cli/signals.hpp"

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <cstdio>
#include <optional>
#include <string>
#include <utility>

namespace troupe::cli {

namespace {

using nlohmann::json;

int complain(const error& e) {
  std::fprintf(stderr, "troupe chat: %s\n", e.note.c_str());
  return failed;
}

/// Reads a line; nothing at the end of input. A signal leaves the line and starts a new one.
std::optional<std::string> read_line(interrupt_flag& interrupt) {
  std::string line;
  while (true) {
    char c = 0;
    const auto n = ::read(STDIN_FILENO, &c, 1);
    if (n < 0 && interrupt.raised()) {
      interrupt.clear();
      std::fputs("\n(/quit or Ctrl-D ends the talk)\n> ", stderr);
      line.clear();
      continue;
    }
    if (n <= 0)
      return line.empty() ? std::nullopt : std::optional{line};
    if (c == '\n')
      return line;
    line += c;
  }
}

/// What cannot be written is noticed at the end of the answer.
void print_piece(std::string_view text) { (void)write_out(stdout, text); }

/// Forgets the oldest exchange, never the system's message; false when only the question is left.
bool forget_oldest(json& messages) {
  const std::size_t first = messages[0]["role"] == "system" ? 1 : 0;
  if (messages.size() < first + 3)
    return false;
  messages.erase(first);
  messages.erase(first);
  return true;
}

/// Streams the answer to what was said so far. A talk that has grown longer than the model's
/// context goes on without its oldest exchanges.
result<streamed> reply(http_client& client, const chat_options& o, json body,
                       interrupt_flag& interrupt, std::string& said) {
  apply(o.sampling, body);
  bool forgot = false;
  while (true) {
    const auto keep = [&](std::string_view text) {
      said += text;
      print_piece(text);
    };
    auto answer = stream_answer(client, body, keep,
                                [&] { return interrupt.raised() || std::ferror(stdout) != 0; });
    if (answer || answer.error().code != errc::limit_exceeded || !forget_oldest(body["messages"]))
      return answer;
    if (!std::exchange(forgot, true))
      std::fputs("(the talk is longer than the model's context: its beginning is left out)\n",
                 stderr);
  }
}

} // namespace

int run_chat(const chat_options& o) {
  auto client = open_client(o.client);
  if (!client)
    return complain(client.error());
  const auto model = choose_model(*client, o.model);
  if (!model)
    return complain(model.error());
  const bool person = isatty(STDIN_FILENO) == 1;
  if (person)
    std::fprintf(stderr, "Talking to %s. Ctrl-C stops an answer; /quit ends.\n", model->c_str());
  auto messages = json::array();
  if (!o.system.empty())
    messages.push_back({{"role", "system"}, {"content", o.system}});
  interrupt_flag interrupt;
  int status = good;
  while (true) {
    if (person)
      std::fputs("> ", stderr);
    const auto line = read_line(interrupt);
    if (!line || *line == "/quit")
      break;
    if (line->empty())
      continue;
    if (const auto problem = check_text(*line); !problem.empty()) {
      status = complain({errc::invalid_argument, problem + "; the line was not sent"});
      continue;
    }
    messages.push_back({{"role", "user"}, {"content", *line}});
    interrupt.clear();
    std::string said;
    const auto answer =
        reply(*client, o, {{"model", *model}, {"messages", messages}}, interrupt, said);
    interrupt.clear();
    if (const auto written = write_out(stdout, "\n"); !written)
      return complain(written.error());
    const bool stopped = !answer && answer.error().code == errc::cancelled;
    if (!answer && !stopped) {
      status = complain(answer.error());
      messages.erase(messages.size() - 1);
      continue;
    }
    status = good;
    messages.push_back({{"role", "assistant"}, {"content", said}});
  }
  return status;
}

} // namespace troupe::cli
