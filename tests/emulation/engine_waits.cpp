// Where a thread of a block waits, and what a kernel dies of.
#include <fmt/format.h>

#include <bit>
#include <cstdlib>
#include <cstring>

#include "block_engine.h"

namespace emulation {
namespace {

bool same_line(const SourceLine& a, const SourceLine& b) {
    return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

}  // namespace

void Engine::make_ready(unsigned thread) {
    threads_[thread].waiting = Waiting::no;
    ready_.push_back(thread);
}

void Engine::set_waiting(unsigned thread, Waiting what, SourceLine where) {
    threads_[thread].fiber = running_;
    threads_[thread].waiting = what;
    threads_[thread].where = where;
}

void Engine::wait(Waiting what, SourceLine where) {
    const unsigned self = current_;
    set_waiting(self, what, where);
    give_turn(*running_);
    threads_[self].waiting = Waiting::no;
    current_ = self;
    threadIdx = indices_[self];
}

void Engine::yield() {
    yielding_ = true;
    make_ready(current_);
    wait(Waiting::turn, {});
}

void Engine::release_barrier() {
    votes_ = {at_barrier_, in_favor_};
    at_barrier_ = 0;
    in_favor_ = 0;
    for (const unsigned thread : order_) {
        if (threads_[thread].waiting == Waiting::barrier) make_ready(thread);
    }
}

BarrierVotes Engine::wait_at_barrier(bool predicate, SourceLine where) {
    if (at_barrier_ == 0) {
        barrier_where_ = where;
    } else if (!same_line(barrier_where_, where)) {
        set_failure(fmt::format(
            "{} is at the barrier of {}:{} while others of its block wait at that of "
            "{}:{}",
            describe(current_), where.file, where.line, barrier_where_.file, barrier_where_.line));
        stop();
    }
    ++at_barrier_;
    if (predicate) ++in_favor_;
    if (at_barrier_ + exited_ == size_) {
        release_barrier();
    } else {
        wait(Waiting::barrier, where);
    }
    return votes_;
}

// Whether all others of the thread's warp, who wait, do so at this line.
bool Engine::all_wait_at(SourceLine where, unsigned self) const {
    const unsigned first = self - self % kWarpSize;
    for (unsigned i = first; i < first + kWarpSize; ++i) {
        if (i != self && !same_line(threads_[i].where, where)) return false;
    }
    return true;
}

std::uint64_t Engine::wait_for_warp(const WarpCall& call, SourceLine where) {
    const unsigned self = current_;
    const unsigned lane = self % kWarpSize;
    Warp& warp = warps_[self / kWarpSize];
    if (((call.mask >> lane) & 1u) == 0) {
        set_failure(fmt::format("{} calls {} at {}:{} with a mask {:#010x} that does not name it",
                                describe(self), name_of(call.operation), where.file, where.line,
                                call.mask));
        stop();
    }
    if (!std::has_single_bit(call.width) || call.width > kWarpSize) {
        set_failure(fmt::format("{} calls {} at {}:{} with the width {}, no power of two up to 32",
                                describe(self), name_of(call.operation), where.file, where.line,
                                static_cast<int>(call.width)));
        stop();
    }
    if (is_of_whole_warp(call.operation) && ~warp.present != 0) {
        set_failure(
            fmt::format("{} calls {} at {}:{} in a warp of which the block has only {} "
                        "lanes, and it takes them all",
                        describe(self), name_of(call.operation), where.file, where.line,
                        std::popcount(warp.present)));
        stop();
    }
    // Lanes that the block does not have may be named: hardware ignores them.
    const unsigned mask = call.mask & warp.present;
    warp.calls[lane] = call;
    warp.calls[lane].mask = mask;
    warp.waiting |= 1u << lane;
    if ((warp.waiting & mask) != mask) {
        wait(Waiting::warp, where);
        return warp.results[lane];
    }
    if (!agree(warp, mask)) {
        set_waiting(self, Waiting::warp, where);
        set_failure("the lanes of a warp wait in different operations" + list_waiting());
        stop();
    }
    if (is_of_whole_warp(call.operation) && !all_wait_at(where, self)) {
        set_waiting(self, Waiting::warp, where);
        set_failure(fmt::format("the lanes of a warp call {} apart, at different lines",
                                name_of(call.operation)) +
                    list_waiting());
        stop();
    }
    compute(warp, mask);
    warp.waiting &= ~mask;
    const unsigned first = self - lane;
    const unsigned others = mask & ~(1u << lane);
    if (turns_->order == Turns::Order::descending) {
        for (unsigned i = kWarpSize; i-- > 0;) {
            if (((others >> i) & 1u) != 0) make_ready(first + i);
        }
    } else {
        for (unsigned rest = others; rest != 0; rest &= rest - 1) {
            make_ready(first + static_cast<unsigned>(std::countr_zero(rest)));
        }
    }
    return warp.results[lane];
}

void Engine::set_failure(const std::string& reason) {
    failure_ = fmt::format("kernel {}: {}", kernel_->name, reason);
}

// Gives the turn to the scheduler for good.
void Engine::stop() {
    give_turn(*running_);
    std::abort();  // nobody comes back
}

std::string Engine::describe(unsigned thread) const {
    const uint3& at = indices_[thread];
    return fmt::format("thread ({}, {}, {}) of block ({}, {}, {})", at.x, at.y, at.z, blockIdx.x,
                       blockIdx.y, blockIdx.z);
}

// A few of the threads that wait, one a line of their source.
std::string Engine::list_waiting() const {
    constexpr unsigned kShown = 4;
    std::string text;
    unsigned shown = 0;
    const SourceLine* last = nullptr;
    for (unsigned i = 0; i < size_ && shown < kShown; ++i) {
        const Thread& thread = threads_[i];
        if (thread.waiting == Waiting::no) continue;
        if (last != nullptr && same_line(*last, thread.where)) continue;
        last = &thread.where;
        ++shown;
        const Warp& warp = warps_[i / kWarpSize];
        const WarpCall& call = warp.calls[i % kWarpSize];
        text +=
            fmt::format("\n  {} waits at {}:{}", describe(i), thread.where.file, thread.where.line);
        if (thread.waiting == Waiting::barrier) {
            text += " at a block's barrier";
        } else {
            text += fmt::format(" in {} with mask {:#010x}", name_of(call.operation), call.mask);
            const unsigned gone = call.mask & warp.exited;
            if (gone != 0) text += fmt::format(", of which lanes {:#010x} have exited", gone);
        }
    }
    return text;
}

}  // namespace emulation
