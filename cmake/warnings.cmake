# Warnings for our own code, as an interface library that every target links privately.
add_library(lanas_warnings INTERFACE)
target_compile_options(lanas_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wno-psabi -Wno-unknown-pragmas>
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>)  # false alarms on std::string in GCC 12 (GCC bug 105651)
