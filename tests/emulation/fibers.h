// Stackful fibers: the cheapest way to let one CUDA thread wait while another goes on. A switch
// saves the callee-saved registers of the System V ABI and swaps stacks, some nanoseconds.
#pragma once

#include <cstddef>

namespace emulation {

// A stack and where its execution stands. The fiber that is running has a stale stack pointer.
class Fiber {
  public:
    using Entry = void (*)(void* argument);

    // The fiber of the calling OS thread, whose stack the system owns.
    Fiber() = default;
    // A fiber that runs entry(argument) when first switched to; entry must never return. `color`
    // staggers the stacks, whose like addresses would else fall into the same cache sets.
    Fiber(Entry entry, void* argument, std::size_t color);
    ~Fiber();
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;
    Fiber(Fiber&&) = delete;
    Fiber& operator=(Fiber&&) = delete;

    // Stops executing `from`, which must be the running fiber, and goes on with `to`. Returns when
    // somebody switches back to `from`.
    static void switch_between(Fiber& from, Fiber& to);

    // Forgets what the fiber was doing, without unwinding it: it starts again at its entry.
    void restart();

  private:
    static void begin();

    void* stack_pointer_ = nullptr;
    char* mapping_ = nullptr;  // guard page first
    std::size_t mapping_size_ = 0;
    std::size_t color_ = 0;
    Entry entry_ = nullptr;
    void* argument_ = nullptr;
    // What AddressSanitizer has to know of a stack.
    void* fake_stack_ = nullptr;
    const void* stack_bottom_ = nullptr;
    std::size_t stack_size_ = 0;
};

}  // namespace emulation
