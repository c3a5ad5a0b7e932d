// fixture_device.h -- the device on which the fixture tests run: the cpu, or in the build with LANAS_EMULATE
// the emulated cuda device. Its memory is open to a test, as the cpu's is, while a DeviceMemory lives.
#pragma once

#include "kernels/core/device.h"
#ifdef LANAS_EMULATE
#include "kernels/core/simt_memory.h"
#endif

namespace lanas::test {

#ifdef LANAS_EMULATE
constexpr Device kDevice = Device::cuda;
using DeviceMemory = simt::Access;
#else
constexpr Device kDevice = Device::cpu;
struct DeviceMemory {};
#endif

}  // namespace lanas::test
