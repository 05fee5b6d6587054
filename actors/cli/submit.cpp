#include "actors/cli/batch.hpp"
#include "actors/cli/commands.hpp"
#include "actors/cli/generation.hpp"
#include "actors/cli/output.hpp"
#include "actors/cli/progress.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace troupe::cli {

namespace {

using nlohmann::json;

int complain(const error& e) {
  std::fprintf(stderr, "troupe submit: %s\n", e.note.c_str());
  return failed;
}

struct close_file {
  void operator()(std::FILE* f) const noexcept { std::fclose(f); }
};
using owned_file = std::unique_ptr<std::FILE, close_file>;

/// Each choice ends in a line break; a failed request is an empty line, so that lines still match.
std::string text_of(const outcome& what) {
  std::string all;
  for (const auto& text : what.texts)
    all += text + "\n";
  return what.texts.empty() ? "\n" : all;
}

/// Answers in the order of their lines, whichever comes first.
class ordered_output {
public:
  ordered_output(std::FILE* out, bool as_json) : out_{out}, json_{as_json} {}

  void put(std::size_t index, const outcome& what) {
    const std::lock_guard lock{mutex_};
    waiting_[index] = json_ ? to_json_line(what) : text_of(what);
    for (auto next = waiting_.find(next_); next != waiting_.end(); next = waiting_.find(next_)) {
      if (written_)
        written_ = write_out(out_, next->second);
      waiting_.erase(next);
      ++next_;
    }
  }

  /// The first failure to write, if there was one.
  [[nodiscard]] result<void> written() {
    const std::lock_guard lock{mutex_};
    return written_;
  }

private:
  std::FILE* out_;
  bool json_;
  std::mutex mutex_;
  std::map<std::size_t, std::string> waiting_;
  std::size_t next_ = 0;
  result<void> written_;
};

int stream_one(const submit_options& o, http_client& client, const std::string& model) {
  json body = {{"model", model}, {"prompt", o.prompt}};
  apply(o.sampling, body);
  const auto print = [](std::string_view text) { (void)write_out(stdout, text); };
  print(o.prompt);
  const auto answer =
      stream_answer(client, std::move(body), print, [] { return std::ferror(stdout) != 0; });
  if (const auto written = write_out(stdout, "\n"); !written)
    return complain(written.error());
  return answer ? good : complain(answer.error());
}

/// The jobs of --file or --prompt; what cannot be read as one is a job that has failed already.
result<std::vector<job>> read_jobs(const submit_options& o, const std::string& model) {
  if (o.file.empty())
    return std::vector<job>{make_job(1, json{{"prompt", o.prompt}}.dump(), model, o.sampling)};
  std::ifstream opened;
  if (o.file != "-") {
    opened.open(o.file);
    if (!opened)
      return fail(errc::io_failure, fmt::format("cannot read {}; check the path", o.file));
  }
  std::istream& in = o.file == "-" ? std::cin : opened;
  std::vector<job> jobs;
  std::string line;
  for (std::size_t number = 1; std::getline(in, line); ++number)
    if (line.find_first_not_of(" \t\r") != std::string::npos)
      jobs.push_back(make_job(number, line, model, o.sampling));
  if (jobs.empty())
    return fail(errc::invalid_argument, fmt::format("{} holds no prompts; write one JSON object a "
                                                    "line, e.g. {{\"prompt\": \"ROMEO:\"}}",
                                                    o.file));
  return jobs;
}

/// Runs all jobs on `concurrency` connections; returns how many failed.
std::size_t run_jobs(const submit_options& o, const std::vector<job>& jobs, ordered_output& out) {
  std::atomic<std::size_t> next{0};
  std::atomic<std::size_t> done{0};
  std::atomic<std::size_t> bad{0};
  progress_line line;
  const auto begin = std::chrono::steady_clock::now();
  const auto work = [&] {
    auto client = open_client(o.client);
    for (auto i = next++; i < jobs.size(); i = next++) {
      const auto what = run_job(*client, jobs[i]);
      if (!what.problem.empty()) {
        ++bad;
        line.clear();
        std::fprintf(stderr, "troupe submit: line %zu: %s\n", jobs[i].line, what.problem.c_str());
      }
      if (what.problem.empty() || o.json)
        out.put(i, what);
      else
        out.put(i, {});
      // Answers that nobody can read are not worth asking for.
      if (!out.written())
        next = jobs.size();
      const auto count = ++done;
      const std::chrono::duration<double> since = std::chrono::steady_clock::now() - begin;
      line.show(static_cast<double>(count) / static_cast<double>(jobs.size()),
                pace(count, jobs.size(), since));
    }
  };
  std::vector<std::thread> threads;
  for (std::size_t t = 1; t < std::min<std::size_t>(o.concurrency, jobs.size()); ++t)
    threads.emplace_back(work);
  work();
  for (auto& t : threads)
    t.join();
  return bad;
}

/// Whether the answers would go over their own prompts.
bool over_itself(const submit_options& o) {
  std::error_code missing;
  return !o.output.empty() && std::filesystem::equivalent(o.file, o.output, missing);
}

} // namespace

int run_submit(const submit_options& o) {
  if (o.prompt.empty() && o.file.empty())
    return complain({errc::invalid_argument, "give --prompt TEXT or --file prompts.jsonl"});
  if (o.stream && !o.file.empty())
    return complain({errc::invalid_argument, "--stream goes with --prompt, not with --file"});
  if (over_itself(o))
    return complain(
        {errc::invalid_argument, fmt::format("--output {} is the --file of the prompts; "
                                             "name another one",
                                             o.output)});
  auto client = open_client(o.client);
  if (!client)
    return complain(client.error());
  const auto model = choose_model(*client, o.model);
  if (!model)
    return complain(model.error());
  if (o.stream)
    return stream_one(o, *client, *model);
  const auto jobs = read_jobs(o, *model);
  if (!jobs)
    return complain(jobs.error());
  owned_file file;
  if (!o.output.empty()) {
    file.reset(std::fopen(o.output.c_str(), "w"));
    if (!file)
      return complain(
          {errc::io_failure, fmt::format("cannot write {}: {}", o.output, std::strerror(errno))});
  }
  ordered_output out{file ? file.get() : stdout, o.json};
  const auto bad = run_jobs(o, *jobs, out);
  if (const auto written = out.written(); !written)
    return complain(written.error());
  if (bad == 0)
    return good;
  if (jobs->size() > 1)
    std::fprintf(stderr, "troupe submit: %zu of %zu requests failed\n", bad, jobs->size());
  return failed;
}

} // namespace troupe::cli
