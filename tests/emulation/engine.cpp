#include "engine.h"

#include <fmt/format.h>

#include <utility>

#include "block_engine.h"

namespace emulation {

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
    for (Thread& thread : threads_) {
        thread.has_waited = false;
        thread.copies.clear();
    }
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

// What the workers were doing is forgotten without unwinding their stacks.
void Engine::abandon_workers() {
    idle_.clear();
    for (const auto& worker : workers_) {
        worker->restart();
        idle_.push_back(worker.get());
    }
}

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

void trap_thread(const char* call, SourceLine where, const char* why) {
    engine().set_failure(fmt::format("{} called {} at {}:{}{}",
                                     engine().describe(engine().thread()), call, where.file,
                                     where.line, why));
    engine().stop();
}

void wait_for_earlier_work() {
    engine().wait_for_earlier_work();
}

void* dynamic_shared_memory() {
    return engine().shared();
}

}  // namespace emulation
