#include "actors/cli/signals.hpp"

#include "actors/cli/commands.hpp"

#include <csignal>
#include <cstdio>
#include <ctime>
#include <pthread.h>
#include <unistd.h>

namespace troupe::cli {

namespace {

sigset_t ending_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

volatile std::sig_atomic_t interrupt_seen = 0;

extern "C" void note_interrupt(int) { interrupt_seen = 1; }

void handle_interrupts(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigaction(SIGINT, &action, nullptr);
}

} // namespace

signal_gate::signal_gate() {
  const auto set = ending_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

bool signal_gate::wait(std::chrono::milliseconds limit) const {
  const auto set = ending_signals();
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(limit);
  timespec time = {};
  time.tv_sec = whole.count();
  time.tv_nsec = std::chrono::nanoseconds{limit - whole}.count();
  return sigtimedwait(&set, nullptr, &time) > 0;
}

impatience::impatience(const signal_gate& gate)
    : thread_{[this, &gate] {
        while (!over_)
          if (gate.wait(std::chrono::milliseconds{50})) {
            std::fputs("troupe: second signal, ending at once\n", stderr);
            _exit(interrupted);
          }
      }} {}

impatience::~impatience() {
  over_ = true;
  thread_.join();
}

interrupt_flag::interrupt_flag() { handle_interrupts(note_interrupt); }
interrupt_flag::~interrupt_flag() { handle_interrupts(SIG_DFL); }
bool interrupt_flag::raised() const noexcept { return interrupt_seen != 0; }
void interrupt_flag::clear() noexcept { interrupt_seen = 0; }

} // namespace troupe::cli
