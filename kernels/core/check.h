// check.h -- the one way this project reports an error.
// CHECK(condition, parts...) throws lanas::Error in every build; the parts are joined into one line that
// starts with the op or file and gives both sides: CHECK(a == b, "relu_backward: dy ", a, " does not match x
// ", b). Programs catch Error in main, print the line and exit with 2.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace lanas {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class... Parts>
std::string join(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

}  // namespace lanas

#define CHECK(condition, ...)                           \
  do {                                                  \
    if (!(condition)) [[unlikely]]                      \
      throw ::lanas::Error(::lanas::join(__VA_ARGS__)); \
  } while (false)
