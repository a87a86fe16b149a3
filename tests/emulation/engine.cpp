#include "engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "fibers.h"
#include "warp.h"

namespace emulation {
namespace {

constexpr unsigned kMaxThreads = 1024;

enum class Waiting : unsigned char { no, barrier, warp, turn };

// A CUDA thread that waits: on which fiber, for what, and where in its source.
struct Thread {
    Fiber* fiber = nullptr;
    Waiting waiting = Waiting::no;
    SourceLine where;
    bool has_waited = false;  // for the work ahead of the kernel
};

bool same_line(const SourceLine& a, const SourceLine& b) {
    return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

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
    void give_turn(Fiber& from);
    void make_ready(unsigned thread);
    bool take_unstarted_next();
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
Engine& engine() {
    static Engine instance;
    return instance;
}

void Engine::prepare(const Kernel& kernel) {
    kernel_ = &kernel;
    failure_.clear();
    size_ = kernel.block.x * kernel.block.y * kernel.block.z;
    arguments_.clear();
    for (const auto& argument : kernel.arguments) arguments_.push_back(argument.get());
    threads_.assign(size_, Thread{});
    warps_.assign((size_ + kWarpSize - 1) / kWarpSize, Warp{});
    indices_.resize(size_);
    order_.resize(size_);
    for (unsigned i = 0; i < size_; ++i) {
        const unsigned row = i / kernel.block.x;
        indices_[i] = {i % kernel.block.x, row % kernel.block.y, row / kernel.block.y};
        order_[i] = turns_->order == Turns::Order::descending ? size_ - 1 - i : i;
        warps_[i / kWarpSize].present |= 1u << (i % kWarpSize);
    }
    blockDim = kernel.block;
    gridDim = kernel.grid;
}

std::string Engine::run(const Kernel& kernel, Turns& turns) {
    SharedMemory shared(kernel.shared_bytes);
    shared_ = &shared;
    turns_ = &turns;
    prepare(kernel);
    const std::uint64_t rows = std::uint64_t{kernel.grid.y} * kernel.grid.z;
    const std::uint64_t blocks = rows * kernel.grid.x;
    std::vector<std::uint64_t> shuffled;
    if (turns.order == Turns::Order::random) {
        shuffled.resize(blocks);
        for (std::uint64_t i = 0; i < blocks; ++i) shuffled[i] = i;
        turns.random.shuffle(shuffled);
    }
    for (std::uint64_t i = 0; i < blocks && failure_.empty(); ++i) {
        std::uint64_t block = turns.order == Turns::Order::descending ? blocks - 1 - i : i;
        if (!shuffled.empty()) block = shuffled[i];
        const std::uint64_t row = block / kernel.grid.x;
        blockIdx = {static_cast<unsigned>(block % kernel.grid.x),
                    static_cast<unsigned>(row % kernel.grid.y),
                    static_cast<unsigned>(row / kernel.grid.y)};
        shared.poison();
        run_block();
    }
    if (!failure_.empty()) abandon_workers();
    kernel_ = nullptr;
    shared_ = nullptr;
    return failure_;
}

void Engine::run_block() {
    started_ = 0;
    exited_ = 0;
    start_one_ = false;
    yielding_ = false;
    at_barrier_ = 0;
    in_favor_ = 0;
    ready_.clear();
    ready_first_ = 0;
    for (Warp& warp : warps_) warp.exited = warp.waiting = 0;
    for (Thread& thread : threads_) thread.has_waited = false;
    if (turns_->order == Turns::Order::random) turns_->random.shuffle(order_);
    give_turn(scheduler_);  // comes back when nobody can go on
    if (failure_.empty() && exited_ != size_) {
        failure_ = fmt::format(
            "kernel {}: threads wait for what can never come: of {} threads {} have exited{}",
            kernel_->name, size_, exited_, list_waiting());
    }
}

// The life of a worker.
void Engine::work() {
    for (;;) {
        start_threads();
        idle_.push_back(running_);
        give_turn(*running_);
    }
}

void Engine::start_threads() {
    const auto call = kernel_->signature->call;
    while (failure_.empty() && (std::exchange(start_one_, false) || take_unstarted_next())) {
        const unsigned thread = order_[started_++];
        current_ = thread;
        threadIdx = indices_[thread];
        call(kernel_->function, arguments_.data());
        leave(current_);
    }
}

void Engine::leave(unsigned thread) {
    if (kernel_->is_programmatic && !threads_[thread].has_waited) {
        set_failure(fmt::format(
            "{} ends without cudaGridDependencySynchronize(), which nobody else can call for it in "
            "a launch with programmatic stream serialization",
            describe(thread)));
    }
    warps_[thread / kWarpSize].exited |= 1u << (thread % kWarpSize);
    ++exited_;
    if (at_barrier_ > 0 && at_barrier_ + exited_ == size_) release_barrier();
}

// Whether the next turn goes to a thread that has not started. Those that may go on come first, so
// that few fibers are needed; a random order has no such preference.
bool Engine::take_unstarted_next() {
    if (started_ == size_) return false;
    const std::size_t ready = ready_.size() - ready_first_;
    if (ready == 0 || std::exchange(yielding_, false)) return true;
    return turns_->order == Turns::Order::random &&
           turns_->random.below(ready + size_ - started_) >= ready;
}

unsigned Engine::take_ready() {
    if (turns_->order == Turns::Order::random) {
        const std::size_t count = ready_.size() - ready_first_;
        std::swap(ready_[ready_first_], ready_[ready_first_ + turns_->random.below(count)]);
    }
    const unsigned thread = ready_[ready_first_++];
    if (ready_first_ == ready_.size()) {
        ready_.clear();
        ready_first_ = 0;
    }
    return thread;
}

// Switches from `from`, whose thread waits or has none, to whoever is next: an unstarted thread,
// one that may go on, or the scheduler if there is neither.
void Engine::give_turn(Fiber& from) {
    Fiber* next = &scheduler_;
    if (failure_.empty()) {
        if (take_unstarted_next()) {
            start_one_ = true;
            if (idle_.empty()) {
                const auto entry = [](void* self) { static_cast<Engine*>(self)->work(); };
                workers_.push_back(std::make_unique<Fiber>(entry, this, workers_.size()));
                idle_.push_back(workers_.back().get());
            }
            next = idle_.back();
            idle_.pop_back();
        } else if (ready_first_ < ready_.size()) {
            current_ = take_ready();
            next = threads_[current_].fiber;
        }
    }
    if (next == &from) return;
    if (next != &scheduler_) running_ = next;
    Fiber::switch_between(from, *next);
}

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

// What the workers were doing is forgotten without unwinding their stacks.
void Engine::abandon_workers() {
    idle_.clear();
    for (const auto& worker : workers_) {
        worker->restart();
        idle_.push_back(worker.get());
    }
}

}  // namespace

std::string execute(const Kernel& kernel, Turns& turns) {
    return engine().run(kernel, turns);
}

bool is_executing() {
    return engine().is_running();
}

BarrierVotes block_barrier(bool predicate, SourceLine where) {
    return engine().wait_at_barrier(predicate, where);
}

std::uint64_t warp_collective(const WarpCall& call, SourceLine where) {
    return engine().wait_for_warp(call, where);
}

unsigned lane_of_thread() {
    return engine().thread() % kWarpSize;
}

void yield_thread() {
    engine().yield();
}

void trap_thread(const char* reason, SourceLine where) {
    engine().set_failure(fmt::format("{} called {} at {}:{}", engine().describe(engine().thread()),
                                     reason, where.file, where.line));
    engine().stop();
}

void wait_for_earlier_work() {
    engine().wait_for_earlier_work();
}

void* dynamic_shared_memory() {
    return engine().shared();
}

}  // namespace emulation
