// Copies into shared memory that a thread has begun and not yet waited for.
#pragma once

#include <cstddef>
#include <vector>

#include "device_engine.h"

namespace emulation {

void carry_out(const AsyncCopy& copy);

class AsyncCopies {
  public:
    void add(const AsyncCopy& copy) { pending_.push_back({copy, commits_}); }
    void commit() { ++commits_; }
    // Carries out what all commits but the last `prior` cover.
    void wait(std::size_t prior);
    // As of a thread that starts: what is pending never happens.
    void clear();

  private:
    struct Pending {
        AsyncCopy copy;
        std::size_t commit;  // that covers it, counted from 0
    };
    std::vector<Pending> pending_;  // in the order of calls
    std::size_t commits_ = 0;
};

}  // namespace emulation
