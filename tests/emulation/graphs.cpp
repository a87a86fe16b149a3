// Stream capture and graphs of the CUDA runtime: lists of operations, in the order of capture.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "runtime.h"

namespace emulation {
namespace {

cudaError_t begin_capture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    if (stream->capture != nullptr) {
        stream->capture->is_valid = false;
        return cudaErrorIllegalState;
    }
    auto capture = std::make_unique<Capture>();
    capture->origin = stream;
    capture->mode = mode;
    capture->members[stream] = {};
    stream->capture = capture.get();
    runtime().captures.push_back(std::move(capture));
    return cudaSuccess;
}

// Takes the capture out of the streams and of the runtime.
std::unique_ptr<Capture> detach(const Capture* capture) {
    Runtime& device = runtime();
    for (const cudaStream_t stream : device.streams) {
        if (stream->capture == capture) stream->capture = nullptr;
    }
    for (const cudaEvent_t event : device.events) {
        if (event->capture == capture) event->capture = nullptr;
    }
    const auto found = std::find_if(device.captures.begin(), device.captures.end(),
                                    [&](const auto& each) { return each.get() == capture; });
    std::unique_ptr<Capture> taken = std::move(*found);
    device.captures.erase(found);
    return taken;
}

cudaError_t end_capture(cudaStream_t stream, cudaGraph_t* out) {
    *out = nullptr;
    if (stream->capture == nullptr) return cudaErrorIllegalState;
    if (stream->capture->origin != stream) {
        stream->capture->is_valid = false;
        return cudaErrorStreamCaptureUnmatched;
    }
    const std::unique_ptr<Capture> capture = detach(stream->capture);
    if (!capture->is_valid) return cudaErrorStreamCaptureInvalidated;
    for (const auto& [member, state] : capture->members) {
        if (member != stream && state.joined < state.given) {
            return refuse(cudaErrorStreamCaptureUnjoined,
                          "cudaStreamEndCapture: a stream that was drawn into the capture was not "
                          "waited for");
        }
    }
    auto graph = std::make_unique<CUgraph_st>();
    graph->operations = std::move(capture->operations);
    for (const Operation& operation : graph->operations) {
        graph->nodes.push_back(std::make_unique<CUgraphNode_st>());
        graph->nodes.back()->type = operation.type;
    }
    runtime().graphs.push_back(graph.get());
    *out = graph.release();
    return cudaSuccess;
}

cudaError_t instantiate(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long flags) {
    if (out == nullptr || graph == nullptr || !contains(runtime().graphs, graph)) {
        return cudaErrorInvalidValue;
    }
    constexpr unsigned long long kKnown =
        cudaGraphInstantiateFlagAutoFreeOnLaunch | cudaGraphInstantiateFlagUseNodePriority;
    if ((flags & ~kKnown) != 0) return cudaErrorNotSupported;
    auto executable = std::make_unique<CUgraphExec_st>();
    executable->operations = graph->operations;
    runtime().executable_graphs.push_back(executable.get());
    *out = executable.release();
    return cudaSuccess;
}

cudaError_t check_executable(cudaGraphExec_t graph, cudaStream_t stream, const char* who) {
    if (graph == nullptr || !contains(runtime().executable_graphs, graph)) {
        return cudaErrorInvalidValue;
    }
    if (const cudaError_t status = check_stream(stream, who); status != cudaSuccess) return status;
    if (stream->capture == nullptr) return cudaSuccess;
    stream->capture->is_valid = false;
    return refuse(cudaErrorNotSupported,
                  fmt::format("{}: a graph in a graph is not emulated", who));
}

}  // namespace
}  // namespace emulation

using emulation::call;
using emulation::Runtime;
using emulation::WhenBroken;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    return call("cudaStreamBeginCapture", [&](Runtime&) {
        const cudaError_t status = emulation::check_stream(stream, "cudaStreamBeginCapture");
        return status == cudaSuccess ? emulation::begin_capture(stream, mode) : status;
    });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    return call("cudaStreamEndCapture", [&](Runtime&) {
        if (graph == nullptr) return cudaErrorInvalidValue;
        const cudaError_t status = emulation::check_stream(stream, "cudaStreamEndCapture");
        // An invalid capture ends, too, and gives no graph.
        return status == cudaSuccess || status == cudaErrorStreamCaptureInvalidated
                   ? emulation::end_capture(stream, graph)
                   : status;
    });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* state) {
    return call("cudaStreamIsCapturing", [&](Runtime&) {
        if (state == nullptr) return cudaErrorInvalidValue;
        const cudaError_t status = emulation::check_stream(stream, "cudaStreamIsCapturing");
        if (status == cudaErrorStreamCaptureInvalidated) {
            *state = cudaStreamCaptureStatusInvalidated;
            return cudaSuccess;
        }
        if (status != cudaSuccess) return status;
        *state = stream->capture == nullptr ? cudaStreamCaptureStatusNone
                                            : cudaStreamCaptureStatusActive;
        return cudaSuccess;
    });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
    return call("cudaGraphGetNodes", [&](const Runtime& device) {
        if (count == nullptr || !emulation::contains(device.graphs, graph)) {
            return cudaErrorInvalidValue;
        }
        if (nodes != nullptr) {
            for (std::size_t i = 0; i < *count; ++i) {
                nodes[i] = i < graph->nodes.size() ? graph->nodes[i].get() : nullptr;
            }
        }
        *count = nodes == nullptr ? graph->nodes.size() : std::min(*count, graph->nodes.size());
        return cudaSuccess;
    });
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
    return call("cudaGraphNodeGetType", [&](Runtime&) {
        if (node == nullptr || type == nullptr) return cudaErrorInvalidValue;
        *type = node->type;
        return cudaSuccess;
    });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long flags) {
    return call("cudaGraphInstantiate",
                [&](Runtime&) { return emulation::instantiate(executable, graph, flags); });
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph,
                                          unsigned long long flags) {
    return call("cudaGraphInstantiateWithFlags",
                [&](Runtime&) { return emulation::instantiate(executable, graph, flags); });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t graph, cudaStream_t stream) {
    return call("cudaGraphUpload", [&](Runtime&) {
        return emulation::check_executable(graph, stream, "cudaGraphUpload");
    });
}

// Operations are shared with the launch, so that the graph can be destroyed before it has run.
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    return call("cudaGraphLaunch", [&](Runtime&) {
        const cudaError_t status = emulation::check_executable(graph, stream, "cudaGraphLaunch");
        if (status != cudaSuccess) return status;
        for (const emulation::Operation& operation : graph->operations) {
            emulation::enqueue(stream, operation);
        }
        return cudaSuccess;
    });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    return call(
        "cudaGraphExecDestroy",
        [&](Runtime& device) {
            if (!emulation::contains(device.executable_graphs, graph)) return cudaErrorInvalidValue;
            std::erase(device.executable_graphs, graph);
            delete graph;
            return cudaSuccess;
        },
        WhenBroken::run_anyway);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    return call(
        "cudaGraphDestroy",
        [&](Runtime& device) {
            if (!emulation::contains(device.graphs, graph)) return cudaErrorInvalidValue;
            std::erase(device.graphs, graph);
            delete graph;
            return cudaSuccess;
        },
        WhenBroken::run_anyway);
}

}  // extern "C"
