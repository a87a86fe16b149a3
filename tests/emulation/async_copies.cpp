#include "async_copies.h"

#include <algorithm>
#include <cstring>

#include "block_engine.h"

namespace emulation {

void carry_out(const AsyncCopy& copy) {
    const std::size_t copied = copy.size - copy.zeros;
    // The source may be null where nothing is read.
    if (copied > 0) std::memcpy(copy.to, copy.from, copied);
    std::memset(static_cast<char*>(copy.to) + copied, 0, copy.zeros);
}

void AsyncCopies::wait(std::size_t prior) {
    const std::size_t done = commits_ - std::min(prior, commits_);
    const auto first_left = std::find_if(pending_.begin(), pending_.end(),
                                         [&](const Pending& each) { return each.commit >= done; });
    for (auto each = pending_.begin(); each != first_left; ++each) carry_out(each->copy);
    pending_.erase(pending_.begin(), first_left);
}

void AsyncCopies::clear() {
    pending_.clear();
    commits_ = 0;
}

// Why a device would not make a copy; null if it would.
const char* Engine::what_is_wrong_with(const AsyncCopy& copy) const {
    const auto misaligned = [&](const void* address) {
        return reinterpret_cast<std::uintptr_t>(address) % copy.size != 0;
    };
    if (copy.size != 4 && copy.size != 8 && copy.size != 16) {
        return " with a size that is none of 4, 8 and 16";
    }
    if (copy.zeros > copy.size) return " with more zeros than the size";
    if (misaligned(copy.to)) return " with a destination that is no multiple of the size";
    if (misaligned(copy.from)) return " with a source that is no multiple of the size";
    if (!shared_->has(copy.to, copy.size)) {
        return " with a destination outside the block's shared memory";
    }
    if (shared_->has(copy.from, copy.size)) return " with a source in shared memory";
    return nullptr;
}

void Engine::copy_async(const AsyncCopy& copy, SourceLine where) {
    if (const char* const why = what_is_wrong_with(copy)) {
        trap_thread("__pipeline_memcpy_async", where, why);
    }
    const bool at_once = turns_->order == Turns::Order::random
                             ? turns_->random.below(2) == 0
                             : turns_->order == Turns::Order::descending;
    if (at_once) {
        carry_out(copy);
    } else {
        threads_[current_].copies.add(copy);
    }
}

void copy_async(const AsyncCopy& copy, SourceLine where) {
    engine().copy_async(copy, where);
}

void commit_copies() {
    engine().copies_of_thread().commit();
}

void wait_for_copies(std::size_t prior) {
    engine().copies_of_thread().wait(prior);
}

}  // namespace emulation
