// simt_orders.h -- runs a check under the emulator in every thread order and with every fibre switch.
// The including file defines LANAS_EMULATE first.
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "kernels/core/launch.cuh"

namespace lanas {

inline Stream& emulated_stream() {
  static Stream stream(Device::cuda);
  return stream;
}

inline std::vector<simt::Settings> all_simt_settings() {
  std::vector<simt::Settings> list;
  for (const simt::Switch context : {simt::kDefaultSwitch, simt::Switch::ucontext}) {
    list.push_back({simt::Order::forward, 0, context});
    list.push_back({simt::Order::reverse, 0, context});
    list.push_back({simt::Order::shuffled, 1, context});
    list.push_back({simt::Order::shuffled, 2, context});
  }
  return list;
}

template <class Body>
void in_all_orders(Body body) {
  for (const simt::Settings& s : all_simt_settings()) {
    SCOPED_TRACE(join("order ", int(s.order), " seed ", s.seed, " switch ", int(s.context)));
    const simt::ScopedSettings scope(s);
    body();
  }
}

// The message of the Error that body throws, or "".
template <class Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline void expect_has(const std::string& text, std::initializer_list<std::string> parts) {
  for (const std::string& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << part << " in: " << text;
}

}  // namespace lanas
