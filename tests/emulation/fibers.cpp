#include "fibers.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#error "The emulation switches stacks by hand and knows x86-64 only"
#endif

// void emulation_switch_stack(void** save, void* load): pushes what the callee must preserve,
// leaves the stack pointer in *save, and continues with the stack `load` that was left so.
asm(R"(
    .text
    .p2align 4
    .globl emulation_switch_stack
    .hidden emulation_switch_stack
    .type emulation_switch_stack, @function
emulation_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulation_switch_stack, .-emulation_switch_stack
)");
extern "C" void emulation_switch_stack(void** save, void* load);

namespace emulation {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStackSize = 256 * 1024;  // redzones make frames several times larger
#else
constexpr std::size_t kStackSize = 64 * 1024;
#endif
constexpr std::size_t kSavedRegisters = 6;
constexpr std::size_t kColors = 32;
constexpr std::size_t kColorStep = 192;  // a multiple of the ABI's 16 and of the cache line

// Who is switching: read by the fiber that starts, on the other stack.
constinit Fiber* running_from = nullptr;
constinit Fiber* running_to = nullptr;

}  // namespace

Fiber::Fiber(Entry entry, void* argument, std::size_t color)
    : color_(color % kColors), entry_(entry), argument_(argument) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    mapping_size_ = kStackSize + page;
    void* mapping = mmap(nullptr, mapping_size_, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    mapping_ = static_cast<char*>(mapping);
    if (mprotect(mapping_, page, PROT_NONE) != 0) {
        munmap(mapping_, mapping_size_);
        throw std::bad_alloc();
    }
    stack_bottom_ = mapping_ + page;
    stack_size_ = kStackSize;
    restart();
}

Fiber::~Fiber() {
    if (mapping_ != nullptr) munmap(mapping_, mapping_size_);
}

void Fiber::restart() {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack_bottom_, stack_size_);
#endif
    char* top = mapping_ + mapping_size_ - color_ * kColorStep;
    // At a function's entry the stack pointer is 8 off a multiple of 16: the return address.
    auto* slots = reinterpret_cast<std::uintptr_t*>(top) - 1;
    slots[0] = 0;  // where a backtrace ends
    *--slots = reinterpret_cast<std::uintptr_t>(&Fiber::begin);
    for (std::size_t i = 0; i < kSavedRegisters; ++i) *--slots = 0;
    stack_pointer_ = slots;
    fake_stack_ = nullptr;
}

void Fiber::switch_between(Fiber& from, Fiber& to) {
    running_from = &from;
    running_to = &to;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from.fake_stack_, to.stack_bottom_, to.stack_size_);
#endif
    emulation_switch_stack(&from.stack_pointer_, to.stack_pointer_);
#if defined(__SANITIZE_ADDRESS__)
    // Back again, on behalf of running_from. The system's stack makes itself known here.
    __sanitizer_finish_switch_fiber(from.fake_stack_, &running_from->stack_bottom_,
                                    &running_from->stack_size_);
#endif
}

void Fiber::begin() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &running_from->stack_bottom_,
                                    &running_from->stack_size_);
#endif
    Fiber& self = *running_to;
    self.entry_(self.argument_);
    __builtin_trap();
}

}  // namespace emulation
