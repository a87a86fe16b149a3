// How the engine runs a block: its threads, which of them go on, and what the others wait for.
// Private to engine.cpp, where turns are given, and engine_waits.cpp, where threads wait and fail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "async_copies.h"
#include "engine.h"
#include "fibers.h"
#include "warp.h"

namespace emulation {

enum class Waiting : unsigned char { no, barrier, warp, turn };

// A CUDA thread that waits: on which fiber, for what, and where in its source.
struct Thread {
    Fiber* fiber = nullptr;
    Waiting waiting = Waiting::no;
    SourceLine where;
    bool has_waited = false;  // for the work ahead of the kernel
    AsyncCopies copies;
};

// Shared memory of exactly the size asked for, so that AddressSanitizer sees what lies beyond.
class SharedMemory {
  public:
    explicit SharedMemory(std::size_t size)
        : bytes_(size > 0 ? ::operator new(size, kAlignment) : nullptr), size_(size) {}
    ~SharedMemory() { ::operator delete(bytes_, kAlignment); }
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;
    SharedMemory(SharedMemory&&) = delete;
    SharedMemory& operator=(SharedMemory&&) = delete;

    void* bytes() const { return bytes_; }
    bool has(const void* from, std::size_t size) const {
        const auto first = reinterpret_cast<std::uintptr_t>(bytes_);
        const auto address = reinterpret_cast<std::uintptr_t>(from);
        return address >= first && address - first <= size_ && size <= size_ - (address - first);
    }
    void poison() {
        if (size_ > 0) std::memset(bytes_, 0xff, size_);
    }

  private:
    static constexpr std::align_val_t kAlignment{128};
    void* bytes_;
    std::size_t size_;
};

// Runs the blocks of kernels. A worker is a fiber that runs unstarted threads one after the other,
// on its own stack; when one of them waits, the worker is bound to it and another worker, or a
// thread that may go on, gets the turn. So a kernel in which nobody waits needs one fiber.
class Engine {
  public:
    std::string run(const Kernel& kernel, Turns& turns);
    bool is_running() const { return kernel_ != nullptr; }

    BarrierVotes wait_at_barrier(bool predicate, SourceLine where);
    std::uint64_t wait_for_warp(const WarpCall& call, SourceLine where);
    void yield();
    void wait_for_earlier_work() { threads_[current_].has_waited = true; }
    void copy_async(const AsyncCopy& copy, SourceLine where);
    AsyncCopies& copies_of_thread() { return threads_[current_].copies; }
    // What the kernel dies of; then it stops. Apart, for stop() never returns and so nothing that
    // its caller still holds would be freed.
    void set_failure(const std::string& reason);
    [[noreturn]] void stop();
    void* shared() const { return shared_->bytes(); }
    unsigned thread() const { return current_; }
    std::string describe(unsigned thread) const;

  private:
    void prepare(const Kernel& kernel);
    void run_block();
    void work();
    void start_threads();
    void leave(unsigned thread);
    void release_barrier();
    void set_waiting(unsigned thread, Waiting what, SourceLine where);
    void wait(Waiting what, SourceLine where);
    bool all_wait_at(SourceLine where, unsigned self) const;
    void give_turn(Fiber& from);
    void make_ready(unsigned thread);
    bool take_unstarted_next();
    const char* what_is_wrong_with(const AsyncCopy& copy) const;
    unsigned take_ready();
    void go_on_as(unsigned thread);
    std::string list_waiting() const;
    void abandon_workers();

    // Of the kernel.
    const Kernel* kernel_ = nullptr;
    Turns* turns_ = nullptr;
    SharedMemory* shared_ = nullptr;
    std::vector<const void*> arguments_;
    std::vector<uint3> indices_;   // threadIdx of each thread
    std::vector<unsigned> order_;  // in which threads start
    std::string failure_;

    // Of the block.
    unsigned size_ = 0;     // threads
    unsigned started_ = 0;  // of order_
    unsigned exited_ = 0;
    unsigned current_ = 0;  // thread
    std::vector<Thread> threads_;
    std::vector<Warp> warps_;
    std::vector<unsigned> ready_;  // may go on; a queue from ready_first_
    std::size_t ready_first_ = 0;
    unsigned at_barrier_ = 0;
    unsigned in_favor_ = 0;
    SourceLine barrier_where_;
    BarrierVotes votes_{};

    Fiber scheduler_;
    Fiber* running_ = nullptr;  // worker
    std::vector<std::unique_ptr<Fiber>> workers_;
    std::vector<Fiber*> idle_;  // workers not bound to a thread
    bool start_one_ = false;    // the next worker starts a thread, whoever else is ready
    bool yielding_ = false;     // the thread that waits would let unstarted ones go first
};

// Constructed on first use; stacks are kept for the next kernel.
Engine& engine();

}  // namespace emulation
