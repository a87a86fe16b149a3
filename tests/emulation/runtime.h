// The state of the emulated device, shared by the files that define the CUDA runtime's symbols.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "emulation.h"
#include "engine.h"

namespace emulation {

// Something that a stream does when its turn comes.
struct Operation {
    cudaGraphNodeType type = cudaGraphNodeTypeEmpty;
    std::function<void()> run;
    // A kernel that was launched so that it may begin before what is ahead of it has ended.
    bool is_programmatic = false;
};

// A moment in a stream's queue: each recording of an event makes one.
struct Mark {
    cudaStream_t stream = nullptr;
    bool reached = false;
    std::chrono::steady_clock::time_point when;
};

// Operations by their number in the order of capture.
using Frontier = std::set<std::size_t>;

// An operation that was captured, and those that must have ended before it begins.
struct Node {
    Operation operation;
    Frontier after;
};

// Operations that are remembered instead of done.
struct Capture {
    cudaStream_t origin = nullptr;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    bool is_valid = true;
    // What the next operation of each stream that takes part comes after.
    std::map<cudaStream_t, Frontier> frontiers;
    std::vector<Node> nodes;
};

enum class MemoryKind { device, pinned };

struct Allocation {
    std::size_t size = 0;
    MemoryKind kind = MemoryKind::device;
};

inline constexpr int kMaxSharedBytes = 48 * 1024;        // without asking for more
inline constexpr int kMaxOptInSharedBytes = 227 * 1024;  // as on compute capability 9.0
inline constexpr int kMaxThreadsPerBlock = 1024;

struct Fault {
    std::string call;
    std::uint64_t at = 0;  // number of the call, from 1
    int status = 0;
};

struct Runtime {
    Runtime();

    std::recursive_mutex mutex;
    cudaError_t last_error = cudaSuccess;
    cudaError_t broken = cudaSuccess;  // the device failed: every call says so until it is reset
    std::string message;
    Turns turns;
    std::optional<Random> meanwhile;  // of run_meanwhile
    std::vector<Fault> faults;
    std::map<std::string, std::uint64_t, std::less<>> calls;
    std::map<std::string, std::uint64_t, std::less<>> launches;
    std::map<std::string, std::uint64_t, std::less<>> early_launches;

    std::map<std::uintptr_t, Allocation> allocations;  // by address
    std::size_t device_bytes = 0;                      // of device memory, allocated …
    std::size_t device_memory = 0;                     // … and in all
    std::vector<cudaStream_t> streams;                 // in order of creation
    std::vector<cudaEvent_t> events;
    std::vector<cudaGraph_t> graphs;
    std::vector<cudaGraphExec_t> executable_graphs;
    std::vector<std::unique_ptr<Capture>> captures;
    std::size_t cublas_handles = 0;
    std::map<std::uint32_t, EpilogueWay> epilogues;  // what was set
    bool relu_keeps_nan = false;                     // that of an epilogue
    bool only_serial_sums = false;
    Tf32 tf32;
    int capability_major = 9;
    int capability_minor = 0;
    std::unordered_map<const void*, const KernelSignature*> signatures;
    std::unordered_map<const void*, std::string> names;
    std::unordered_map<const void*, int> shared_limits;
};

Runtime& runtime();

// Counts a call. The status that it is to return without doing anything, if there is one.
std::optional<int> injected_fault(const char* call);

// Says why a call is refused, and returns the status.
cudaError_t refuse(cudaError_t status, const std::string& message);
// The device fails for good.
void break_device(cudaError_t status, const std::string& message);

// A runtime function: locks, injects faults, refuses a broken device, and remembers an error.
enum class WhenBroken { refuse, run_anyway };
template <class Body>
cudaError_t call(const char* name, Body body, WhenBroken when_broken = WhenBroken::refuse) {
    Runtime& device = runtime();
    const std::scoped_lock lock(device.mutex);
    const std::optional<int> fault = injected_fault(name);
    auto status = static_cast<cudaError_t>(fault.value_or(cudaSuccess));
    if (status == cudaSuccess && when_broken == WhenBroken::refuse) status = device.broken;
    if (status == cudaSuccess && !fault) status = body(device);
    if (status == cudaSuccess) status = device.broken;
    // Not being ready is an answer and no error.
    if (status != cudaSuccess && status != cudaErrorNotReady) device.last_error = status;
    return status;
}

// The stream if it can be used, else the reason why not. The default stream cannot: whoever uses it
// has forgotten to name one.
cudaError_t check_stream(cudaStream_t stream, const char* who);

// Appends to the stream's queue, or to what it captures.
void enqueue(cudaStream_t stream, Operation operation);

// Refuses what must not happen while a stream captures. `relaxed` names what relaxed captures
// allow. A refusal ends the capture.
cudaError_t check_no_capture(const char* who);
cudaError_t check_not_capturing(cudaStream_t stream, const char* who);

// Runs queues: all of one stream; until a mark is reached; all, in the order of the turns.
void run_stream(cudaStream_t stream);
void run_until(const std::shared_ptr<Mark>& mark);
void run_all();
// Runs the stream's next operation, if there is one.
void run_one(cudaStream_t stream);

// Streams that wait for the default stream, on which calls without a stream work.
void run_blocking_streams();

// Whether [pointer, pointer + size) lies in one allocation on the device.
bool is_device_range(const void* pointer, std::size_t size);
// Whether a kernel may be given the pointer: into memory of the device or pinned, or to its end.
// Asked of its parameters; pointers inside of structs are not seen.
bool is_visible_to_device(const void* pointer);

// The kernel's name in the symbol table of its binary, without namespaces and parameters.
std::string name_of_kernel(const void* function);

template <class T>
bool contains(const std::vector<T>& values, const T& value) {
    for (const T& each : values) {
        if (each == value) return true;
    }
    return false;
}

}  // namespace emulation

struct CUstream_st {
    unsigned flags = 0;
    int priority = 0;
    std::deque<emulation::Operation> pending;
    emulation::Capture* capture = nullptr;
};

struct CUevent_st {
    unsigned flags = 0;
    std::shared_ptr<emulation::Mark> mark;  // of the last recording
    // If that recording was captured:
    emulation::Capture* capture = nullptr;
    emulation::Frontier frontier;
};

struct CUgraphNode_st {
    cudaGraphNodeType type = cudaGraphNodeTypeEmpty;
};

struct CUgraph_st {
    std::vector<emulation::Node> nodes;
    std::vector<std::unique_ptr<CUgraphNode_st>> handles;  // one a node
};

struct CUgraphExec_st {
    std::vector<emulation::Node> nodes;
};
