// interrupt.h -- a polite stop: SIGINT and SIGTERM set a flag; long work looks at it between steps, saves and
// ends.
#pragma once

#include <csignal>
#include <stdexcept>

namespace lanas {

// Thrown after a checkpoint has been written; what() names it. Programs end with exit code 130.
class Interrupted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline volatile std::sig_atomic_t stop_flag = 0;

inline bool stop_requested() { return stop_flag != 0; }

// A second signal ends the program at once.
inline void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = [](int signal) {
    stop_flag = 1;
    std::signal(signal, SIG_DFL);
  };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace lanas
