# Warnings for our own code, as an interface library that every target links privately.
add_library(lanas_warnings INTERFACE)
target_compile_options(lanas_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wno-psabi -Wno-unknown-pragmas>)
