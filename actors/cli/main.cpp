#include "actors/cli/arguments.hpp"
#include "actors/cli/commands.hpp"
#include "actors/cli/output.hpp"
#include "config/text.hpp"
#include "troupe/actors/backends.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace troupe::cli;

/// For everything that goes into a request as text.
CLI::Validator text() { return {check_text, ""}; }

CLI::Option* add_file(CLI::App* app, file_options& o) {
  auto* file =
      app->add_option("FILE", o.file, "The cluster file, or a model repository")->required();
  app->add_option("--set", o.set, "path=value over the file, e.g. models.bard.max_num_seqs=8")
      ->allow_extra_args(false);
  app->add_option("--port", o.port,
                  "The port of the HTTP edge, 0 takes a free one; a model repository has gRPC and "
                  "metrics on the two behind it");
  app->add_option("--backend-directory", o.backend_directory,
                  "Where backends of one's own lie: <name>/libtroupe_<name>.so");
  app->add_option("--log-level", o.log_level, "trace, debug, info, warn, error or off");
  return file;
}

void add_client(CLI::App* app, client_options& o) {
  app->add_option("--url", o.url, "Where the cluster answers")->capture_default_str();
  app->add_option("--api-key", o.api_key, "The API key; the variable TROUPE_API_KEY by default");
}

void add_sampling(CLI::App* app, sampling_options& o) {
  const CLI::Validator finite{check_finite, ""};
  app->add_option("--temperature", o.temperature, "0 takes the likeliest token")->check(finite);
  app->add_option("--top-p", o.top_p, "Allows the likeliest tokens up to this probability")
      ->check(finite);
  app->add_option("--top-k", o.top_k, "Allows the k likeliest tokens");
  app->add_option("--seed", o.seed, "The same seed gives the same answer");
  app->add_option("--max-tokens", o.max_tokens, "The most tokens of one answer");
}

CLI::App* add_up(CLI::App& app, up_options& o) {
  auto* up = app.add_subcommand("up", "Start the cluster of a file and serve until a signal");
  auto* file = add_file(up, o.config)->required(false);
  up->add_option("--model-repository", o.config.file,
                 "In place of FILE: serve a Triton model repository, by default on this node alone")
      ->excludes(file);
  up->parse_complete_callback([&o] {
    if (o.config.file.empty())
      throw CLI::RequiredError("FILE or --model-repository");
  });
  up->add_option("--node", o.config.node,
                 "Which node of the file to be; all that are this machine's by default");
  up->add_option("--model-control-mode,--model-control", o.control_mode,
                 "none: models stay as at the start; explicit: clients load and unload them; poll: "
                 "they follow the repository's files")
      ->check(CLI::IsMember({"none", "explicit", "poll"}));
  up->add_option("--load-model", o.load_models,
                 "What the explicit mode loads at the start, * for all; may be given again")
      ->allow_extra_args(false);
  up->add_option("--repository-poll-secs", o.poll_seconds, "How often the poll mode looks; 15")
      ->check(CLI::Range(1U, 86400U));
  up->add_option("--executor", o.executor, "For tests: cpu, simulated or cuda:0")->group("");
  up->add_option("--child-of", o.parent, "For troupe itself: the process to end with")->group("");
  up->add_flag("--fault-injection", o.fault_injection, "For tests: lets clients kill actors")
      ->group("");
  up->footer("Examples:\n  troupe up examples/quickstart/cluster.json\n"
             "  troupe up cluster.json --port 0 --set models.bard.max_num_seqs=8\n"
             "  troupe up --model-repository examples/models\n"
             "  troupe up examples/multi_node/cluster.json --node stage1\n"
             "Of a file with several nodes, those of this machine are started, a process each.\n"
             "SIGTERM or Ctrl-C lets running answers end; a second one ends at once.");
  return up;
}

CLI::App* add_check(CLI::App& app, file_options& o) {
  auto* check = app.add_subcommand(
      "check", "Explain every value of a cluster file and find every mistake in it");
  add_file(check, o);
  check->footer("Examples:\n  troupe check examples/quickstart/cluster.json\n"
                "  troupe check examples/models\n"
                "The exit status is 1 when something must be mended.");
  return check;
}

CLI::App* add_chat(CLI::App& app, chat_options& o) {
  auto* chat = app.add_subcommand("chat", "Talk to a model of a running cluster");
  add_client(chat, o.client);
  chat->add_option("--model", o.model, "The model; the first of the cluster by default")
      ->check(text());
  chat->add_option("--system", o.system, "A system message before the talk")->check(text());
  add_sampling(chat, o.sampling);
  chat->footer("Example:\n  troupe chat --model bard --temperature 0.8\n"
               "Ctrl-C stops an answer; /quit or the end of input ends the talk.");
  return chat;
}

CLI::App* add_submit(CLI::App& app, submit_options& o) {
  auto* submit = app.add_subcommand("submit", "Send one prompt, or a file of them");
  add_client(submit, o.client);
  submit->add_option("--model", o.model, "The model; the first of the cluster by default")
      ->check(text());
  auto* prompt = submit->add_option("--prompt", o.prompt, "One prompt")->check(text());
  submit
      ->add_option("--file", o.file,
                   "JSON lines: bodies of /v1/completions or /v1/chat/completions, or only "
                   "{\"prompt\": ...}; - reads standard input")
      ->excludes(prompt);
  submit->add_option("--output", o.output, "Where answers go; standard output by default");
  submit->add_option("--concurrency", o.concurrency, "Requests at a time")
      ->check(CLI::Range(1U, 256U))
      ->capture_default_str();
  submit->add_flag("--json,!--text", o.json, "Answers as JSON lines (the default with --file)");
  submit->add_flag("--stream", o.stream, "Print the answer to --prompt as it comes");
  add_sampling(submit, o.sampling);
  submit->footer("Examples:\n  troupe submit --prompt 'ROMEO:' --max-tokens 100 --stream\n"
                 "  troupe submit --file prompts.jsonl --output answers.jsonl --concurrency 32\n"
                 "A line that fails is reported and the others go on; the exit status is then 1.");
  return submit;
}

void add_limits(CLI::App* app, compare_limits& o) {
  const CLI::Validator finite{check_finite, ""};
  app->add_option("--max-latency-ratio", o.latency_ratio,
                  "Limit of the medians: first token, per token, whole answer; custom / base")
      ->check(finite)
      ->check(CLI::PositiveNumber);
  app->add_option("--max-p95-ratio", o.p95_ratio, "The same of the 95th of a hundred")
      ->check(finite)
      ->check(CLI::PositiveNumber);
  // Nothing loses more than all, and who must win says so by less than zero.
  app->add_option("--max-throughput-loss", o.throughput_loss, "Limit, as a share of the base's")
      ->check(finite)
      ->check(CLI::Range(-100.0, 1.0));
  auto* share = app->add_option("--min-equal-share", o.equal_share,
                                "Least share of answers that are equal, finish reasons included")
                    ->check(CLI::Range(0.0, 1.0));
  app->add_flag("--require-equal-output", o.equal_output, "All answers must be equal")
      ->excludes(share);
}

void add_compare(CLI::App* bench, compare_options& o) {
  auto* compare = bench->add_subcommand(
      "compare", "Measure what a backend of one's own costs: two clusters on the same prompts");
  add_file(compare, o.config)->description("The cluster file or model repository that is compared");
  compare->get_option("--port")->group("");
  compare->add_option("--against", o.against, "The base: a cluster file or a model repository")
      ->required();
  compare->add_option("--against-backend-directory", o.against_backends,
                      "Of the base, where it differs");
  compare->add_option("--model", o.model, "The model; the first by default")->check(text());
  compare->add_option("--against-model", o.against_model, "The base's model; the first by default")
      ->check(text());
  compare->add_option("--api", o.api, "openai, generate, or auto: openai where both serve it")
      ->check(CLI::IsMember({"auto", "openai", "generate"}))
      ->capture_default_str();
  compare->add_option("--prompts-file", o.prompts_file,
                      "JSON lines in place of made prompts: strings, or bodies of a request");
  compare->add_option("--prompts", o.prompts, "Made prompts a round")
      ->check(CLI::Range(1U, 100000U))
      ->capture_default_str();
  compare->add_option("--words", o.words, "Words of a made prompt")
      ->check(CLI::Range(1U, 1000000U))
      ->capture_default_str();
  compare->add_option("--max-tokens", o.max_tokens, "Of an answer")
      ->check(CLI::Range(1U, 1000000U))
      ->capture_default_str();
  compare->add_option("--rounds", o.rounds)->check(CLI::Range(1U, 1000U))->capture_default_str();
  compare->add_option("--concurrency", o.concurrency, "Requests at a time for the throughput")
      ->check(CLI::Range(1U, 1024U))
      ->capture_default_str();
  compare->add_option("--seed", o.seed, "Of prompts and sampling")->capture_default_str();
  compare->add_option("--api-key", o.api_key, "The variable TROUPE_API_KEY by default");
  compare->add_flag("--json", o.json, "One JSON object");
  compare->add_option("--executor", o.executor, "For tests: cpu, simulated or cuda:0")->group("");
  add_limits(compare, o.limits);
  compare->footer(
      "Example:\n  troupe bench compare mine/models --against models --backend-directory backends "
      "\\\n"
      "      --require-equal-output --max-latency-ratio 1.05 --max-throughput-loss 0.05\n"
      "Each side is a process of its own with the same settings; prompts go to both in turns. The "
      "base runs\nagainst itself first (A/A): what differs there is noise. Answers are greedy.\n"
      "The exit status is 0 when all limits are kept, 3 when one is broken, 1 for errors.");
}

CLI::App* add_bench(CLI::App& app, bench_options& o, compare_options& compare) {
  auto* bench = app.add_subcommand("bench", "Measure a cluster under load of random prompts");
  add_compare(bench, compare);
  add_file(bench, o.config)
      ->required(false)
      ->description("The cluster file, to be started in this process; without it the server of "
                    "--url is asked");
  add_client(bench, o.client);
  bench->add_option("--model", o.model, "The model; the first of the cluster by default")
      ->check(text());
  bench
      ->add_option("--load", o.loads,
                   "IN/OUT:REQUESTS, or with @AT_A_TIME behind it: prompts of IN tokens, answers "
                   "of OUT; may be given again")
      ->allow_extra_args(false);
  bench->add_option("--decode", o.decode, "Times a decode step of so many sequences, e.g. 1,8,64")
      ->delimiter(',');
  bench->add_option("--first-token", o.first_token, "Times the first token of one prompt, e.g. 128")
      ->delimiter(',');
  bench->add_option("--rounds", o.rounds, "Runs behind one figure of --decode and --first-token")
      ->check(CLI::Range(1U, 100U))
      ->capture_default_str();
  bench->add_option("--vocabulary", o.vocabulary, "Prompts are drawn from ids below this")
      ->check(CLI::Range(1U, 10000000U))
      ->capture_default_str();
  bench->add_option("--seed", o.seed, "Of the prompts")->capture_default_str();
  bench->add_flag("--json", o.json, "One JSON object a figure");
  bench->footer("Examples:\n  troupe bench examples/quickstart/cluster.json --decode 1,8\n"
                "  troupe bench cluster.json --load 128/128:2048 --json\n"
                "  troupe bench --url http://127.0.0.1:8000 --load 512/128:768@64\n"
                "  troupe bench compare mine/models --against models\n"
                "Answers are greedy and go on behind end-of-sequence tokens.");
  return bench;
}

CLI::App* add_status(CLI::App& app, status_options& o) {
  auto* status = app.add_subcommand("status", "Nodes, models, requests, KV use and tokens/s");
  add_client(status, o.client);
  status->add_flag("--json", o.json, "As JSON");
  status->add_flag("--watch", o.watch, "Again every second, until Ctrl-C");
  status->footer("Examples:\n  troupe status\n  troupe status --json | jq .replicas");
  return status;
}

CLI::App* add_drain(CLI::App& app, drain_options& o) {
  auto* drain = app.add_subcommand("drain", "Empty a node without cutting a stream, and end it");
  drain->add_option("NODE", o.node, "The node's name")->required()->check(text());
  drain->add_option("--deadline", o.deadline_s, "Seconds; what still runs then moves elsewhere")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  drain->add_flag("--stay", o.stay, "Leave the process running, empty");
  add_client(drain, o.client);
  drain->footer("Example:\n  troupe drain stage1 --deadline 60\n"
                "--url may name any front of the cluster.");
  return drain;
}

CLI::App* add_secret(CLI::App& app, secret_options& o) {
  auto* secret = app.add_subcommand("secret", "Make the secret that the nodes of a cluster share");
  secret->add_option("FILE", o.file, "The file to make")->required();
  secret->footer("Example:\n  troupe secret globe.secret");
  return secret;
}

/// A command is good only if all that it said has arrived.
int finish(int status) {
  const auto written = flush_output();
  if (written || status != good)
    return status;
  std::fprintf(stderr, "troupe: %s\n", written.error().note.c_str());
  return failed;
}

/// The complaint about a first word that is no command, or nothing.
std::string unknown_command(const CLI::App& app, std::string_view word) {
  std::vector<std::string> kept;
  for (const auto* command : app.get_subcommands({}))
    kept.push_back(command->get_name());
  const std::vector<std::string_view> names{kept.begin(), kept.end()};
  if (word.empty() || word.front() == '-' ||
      std::find(names.begin(), names.end(), word) != names.end())
    return {};
  return "there is no command " + troupe::config::in_quotes(word) +
         troupe::config::did_you_mean(word, names) + "; there are " +
         troupe::config::choices(names);
}

int run(int argc, char** argv) {
  CLI::App app{"Serves large language models by actors, on one machine or many."};
  app.name("troupe");
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "The help of all commands");
  app.set_version_flag("--version", std::string{TROUPE_VERSION});
  up_options up;
  file_options check;
  chat_options chat;
  submit_options submit;
  status_options status;
  bench_options bench;
  drain_options drain;
  secret_options secret;
  auto* up_app = add_up(app, up);
  auto* check_app = add_check(app, check);
  auto* chat_app = add_chat(app, chat);
  auto* submit_app = add_submit(app, submit);
  auto* status_app = add_status(app, status);
  compare_options compare;
  auto* bench_app = add_bench(app, bench, compare);
  auto* drain_app = add_drain(app, drain);
  auto* secret_app = add_secret(app, secret);
  auto* version_app = app.add_subcommand("version", "Print the version");
  app.footer("Start with:\n  troupe up examples/quickstart/cluster.json\n"
             "and, in another terminal:\n  troupe chat");
  if (const auto wrong = unknown_command(app, argc > 1 ? argv[1] : ""); !wrong.empty()) {
    std::fprintf(stderr, "troupe: %s\n", wrong.c_str());
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? finish(good) : 2;
  }
  submit.json = submit.json || (!submit.file.empty() && submit_app->count("--json") == 0);
  if (up_app->parsed())
    return run_up(up);
  if (check_app->parsed())
    return finish(run_check(check));
  if (chat_app->parsed())
    return finish(run_chat(chat));
  if (submit_app->parsed())
    return finish(run_submit(submit));
  if (status_app->parsed())
    return finish(run_status(status));
  if (drain_app->parsed())
    return finish(run_drain(drain));
  if (secret_app->parsed())
    return finish(run_secret(secret));
  if (bench_app->got_subcommand("compare"))
    return finish(run_compare(compare));
  if (bench_app->parsed())
    return finish(run_bench(std::move(bench)));
  if (version_app->parsed())
    std::printf("troupe %s\n", TROUPE_VERSION);
  return finish(good);
}

} // namespace

int main(int argc, char** argv) {
  open_standard_streams();
  // Only this program itself starts it so.
  constexpr auto host_word = "host-process";
  if (argc == 2 && std::string_view{argv[1]} == host_word)
    return troupe::actors::host_process();
  troupe::actors::set_host_command({"/proc/self/exe", host_word});
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "troupe: %s\n", e.what());
    return failed;
  }
}
