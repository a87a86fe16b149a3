#include "kernels/begin_steps.h"

#include <limits>

#include "kernels/check.h"
#include "kernels/launch.h"
#include "kernels/reduce.cuh"
#include "kernels/shuffle.cuh"
#include "kernels/tile_grid.h"

namespace vae::kernels {
namespace {

constexpr unsigned kThreads = 256;

// `slot` is in the ring, and `rows` no more than it has.
__device__ inline unsigned forward_in_ring(unsigned slot, unsigned rows, unsigned ring) {
    const unsigned to_end = ring - slot;
    return rows < to_end ? slot + rows : rows - to_end;
}

__global__ void __launch_bounds__(kThreads)
    begin_steps_kernel(const StepOrder order, unsigned steps, unsigned examples, StepState* states,
                       std::uint32_t* index, std::uint32_t* slots) {
    const StepQueue queue = *order.queue;
    const unsigned i = blockIdx.x * kThreads + threadIdx.x;
    if (i < steps) states[i] = order.table[queue.next + i];
    if (i < examples) {
        NoiseStream noise = order.shuffle;
        noise.step = queue.epoch;
        const std::uint32_t position = queue.position + i;
        index[i] =
            queue.has_rows != 0 ? order.rows[position] : shuffled(noise, position, order.count);
        if (order.ring != 0) slots[i] = forward_in_ring(queue.slot, i, order.ring);
    }
    __syncthreads();  // the whole block has read the queue
    if (threadIdx.x != 0) return;
    __threadfence();
    if (take_last_ticket(&order.queue->ticket, gridDim.x)) {
        __threadfence();  // the queue is not written before all have read it
        order.queue->next = queue.next + steps;
        order.queue->position = queue.position + examples;
        if (order.ring != 0) {
            order.queue->slot = forward_in_ring(queue.slot, examples, order.ring);
        }
    }
}

}  // namespace

void begin_steps(const StepOrder& order, int steps, int batch, StepState* states,
                 std::uint32_t* index, std::uint32_t* slots, cudaStream_t stream) {
    constexpr const char* kLauncher = "begin_steps";
    require(steps >= 1 && batch >= 1, kLauncher, "steps and batch must be positive");
    require(batch <= std::numeric_limits<int>::max() / steps, kLauncher, "too many examples");
    require(order.count >= 1, kLauncher, "there are no examples");
    const auto examples = static_cast<unsigned>(steps * batch);
    require(order.ring == 0 || examples <= order.ring, kLauncher,
            "more examples than the ring has");
    const auto blocks = static_cast<unsigned>(tiles_of(examples, kThreads));
    launch(kLauncher, begin_steps_kernel, {dim3(blocks), dim3(kThreads)}, stream, order,
           static_cast<unsigned>(steps), examples, states, index, slots);
}

}  // namespace vae::kernels
