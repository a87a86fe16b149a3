// The start of some training steps on the device: what each of them reads in place of asking the
// host. Replayed in a graph it goes on where it stopped.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/noise.h"
#include "kernels/step_state.h"

namespace vae::kernels {

// Where the steps that the host has laid out stand; one, on the device.
struct StepQueue {
    unsigned next = 0;      // entry of the table that the next step takes
    unsigned position = 0;  // of its first example in the order
    unsigned epoch = 0;     // whose order it is
    unsigned has_rows = 0;  // 1: the order is `rows`
    unsigned slot = 0;      // of its first example in the ring
    unsigned ticket = 0;    // zero between launches
};

// On the device but `shuffle`, `count` and `ring`.
struct StepOrder {
    StepQueue* queue = nullptr;
    const StepState* table = nullptr;     // what the host computed for each step
    const std::uint32_t* rows = nullptr;  // an explicit order; not read unless has_rows
    NoiseStream shuffle = {};             // of the order of an epoch; its step is the epoch's
    std::uint32_t count = 0;              // examples of an epoch
    std::uint32_t ring = 0;  // rows of the ring through which examples come one after the other;
                             // 0: there is none
};

// Computes  states[k] = table[next + k] for k < steps
//           index[i] = example at position + i for i < steps·batch: rows[position + i], or the
//           epoch's shuffled order (kernels/shuffle.cuh)
//           slots[i] = (slot + i) mod ring, where that example lies, if there is a ring
//           then next += steps, position += steps·batch, slot = (slot + steps·batch) mod ring
// Shapes    states[steps], index[steps·batch], slots[steps·batch] (null without a ring); steps,
//           batch >= 1; a ring has steps·batch rows or more. All entries and positions that are
//           read must be there, and slot in the ring: it is not checked.
// Writes    overwrites states, index and slots, updates *queue; nothing may overlap
// Numerics  exact
// Cost      16 rounds of Philox, about 1500 instructions, an example, up to twice where count is no
//           power of two; bound by instructions, and once for many steps
// Launch    256 threads a block, one an example; the last block to finish moves the queue on
void begin_steps(const StepOrder& order, int steps, int batch, StepState* states,
                 std::uint32_t* index, std::uint32_t* slots, cudaStream_t stream);

}  // namespace vae::kernels
