// Names parts of a program's time for NVIDIA's profilers (NVTX). Costs next to nothing without one.
#pragma once

#include <nvtx3/nvToolsExt.h>

namespace vae::gpu {

class Range {
  public:
    // The calling thread is within `name` as long as the range lives.
    explicit Range(const char* name) { nvtxRangePushA(name); }
    ~Range() { nvtxRangePop(); }
    Range(const Range&) = delete;
    Range& operator=(const Range&) = delete;
    Range(Range&&) = delete;
    Range& operator=(Range&&) = delete;
};

}  // namespace vae::gpu
