// Stream capture and graphs of the CUDA runtime: operations, each with those that it comes after.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
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
    capture->frontiers[stream] = {};
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

// Operations that no other one comes after.
Frontier leaves_of(const std::vector<Node>& nodes) {
    Frontier leaves;
    for (std::size_t i = 0; i < nodes.size(); ++i) leaves.insert(i);
    for (const Node& node : nodes) {
        for (const std::size_t earlier : node.after) leaves.erase(earlier);
    }
    return leaves;
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
    const Frontier& joined = capture->frontiers[stream];
    const Frontier leaves = leaves_of(capture->nodes);
    if (!std::includes(joined.begin(), joined.end(), leaves.begin(), leaves.end())) {
        return refuse(cudaErrorStreamCaptureUnjoined,
                      "cudaStreamEndCapture: a stream that was drawn into the capture was not "
                      "waited for");
    }
    auto graph = std::make_unique<CUgraph_st>();
    graph->nodes = std::move(capture->nodes);
    for (const Node& node : graph->nodes) {
        graph->handles.push_back(std::make_unique<CUgraphNode_st>());
        graph->handles.back()->type = node.operation.type;
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
    executable->nodes = graph->nodes;
    runtime().executable_graphs.push_back(executable.get());
    *out = executable.release();
    return cudaSuccess;
}

// A kernel does not wait for the end of the one ahead of it if it was launched so.
cudaGraphEdgeData edge_between(const Node& from, const Node& to) {
    cudaGraphEdgeData edge = {};
    if (to.operation.is_programmatic && from.operation.type == cudaGraphNodeTypeKernel) {
        edge.from_port = cudaGraphKernelNodePortProgrammatic;
        edge.type = cudaGraphDependencyTypeProgrammatic;
    }
    return edge;
}

cudaError_t list_edges(const CUgraph_st& graph, cudaGraphNode_t* from, cudaGraphNode_t* to,
                       cudaGraphEdgeData* data, std::size_t& count) {
    const bool only_count = from == nullptr && to == nullptr;
    if (!only_count && (from == nullptr || to == nullptr)) return cudaErrorInvalidValue;
    if (only_count && data != nullptr) return cudaErrorInvalidValue;
    std::size_t edges = 0;
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
        for (const std::size_t earlier : graph.nodes[i].after) {
            if (!only_count && edges < count) {
                const cudaGraphEdgeData edge = edge_between(graph.nodes[earlier], graph.nodes[i]);
                if (data == nullptr && edge.type != 0) return cudaErrorLossyQuery;
                if (data != nullptr) data[edges] = edge;
                from[edges] = graph.handles[earlier].get();
                to[edges] = graph.handles[i].get();
            }
            ++edges;
        }
    }
    if (!only_count) {
        for (std::size_t i = edges; i < count; ++i) from[i] = to[i] = nullptr;
    }
    count = only_count ? edges : std::min(count, edges);
    return cudaSuccess;
}

// Which of `ready` goes next.
std::size_t take_next(Frontier& ready, Turns& turns) {
    auto next = ready.begin();
    if (turns.order == Turns::Order::descending) next = std::prev(ready.end());
    if (turns.order == Turns::Order::random) {
        std::advance(next, static_cast<std::ptrdiff_t>(turns.random.below(ready.size())));
    }
    const std::size_t taken = *next;
    ready.erase(next);
    return taken;
}

// An order in which the nodes may run: of those that wait for nothing more, in the order of turns,
// the one that was captured first, last, or any.
std::vector<std::size_t> choose_order(const std::vector<Node>& nodes, Turns& turns) {
    std::vector<std::vector<std::size_t>> dependents(nodes.size());
    std::vector<std::size_t> missing(nodes.size());
    Frontier ready;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        missing[i] = nodes[i].after.size();
        if (missing[i] == 0) ready.insert(i);
        for (const std::size_t earlier : nodes[i].after) dependents[earlier].push_back(i);
    }
    std::vector<std::size_t> order;
    while (!ready.empty()) {
        order.push_back(take_next(ready, turns));
        for (const std::size_t later : dependents[order.back()]) {
            if (--missing[later] == 0) ready.insert(later);
        }
    }
    return order;
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

// A capture is over even when its end fails, as on a device.
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    const cudaError_t outcome = call("cudaStreamEndCapture", [&](Runtime&) {
        if (graph == nullptr) return cudaErrorInvalidValue;
        const cudaError_t status = emulation::check_stream(stream, "cudaStreamEndCapture");
        // An invalid capture ends, too, and gives no graph.
        return status == cudaSuccess || status == cudaErrorStreamCaptureInvalidated
                   ? emulation::end_capture(stream, graph)
                   : status;
    });
    const std::scoped_lock lock(emulation::runtime().mutex);
    if (outcome != cudaSuccess && emulation::contains(emulation::runtime().streams, stream) &&
        stream->capture != nullptr && stream->capture->origin == stream) {
        (void)emulation::detach(stream->capture);
    }
    return outcome;
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
                nodes[i] = i < graph->handles.size() ? graph->handles[i].get() : nullptr;
            }
        }
        *count = nodes == nullptr ? graph->nodes.size() : std::min(*count, graph->nodes.size());
        return cudaSuccess;
    });
}

cudaError_t cudaGraphGetEdges(cudaGraph_t graph, cudaGraphNode_t* from, cudaGraphNode_t* to,
                              cudaGraphEdgeData* data, std::size_t* count) {
    return call("cudaGraphGetEdges", [&](const Runtime& device) {
        if (count == nullptr || !emulation::contains(device.graphs, graph)) {
            return cudaErrorInvalidValue;
        }
        return emulation::list_edges(*graph, from, to, data, *count);
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

// Operations are copied to the stream, so that the graph can be destroyed before it has run.
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    return call("cudaGraphLaunch", [&](Runtime& device) {
        const cudaError_t status = emulation::check_executable(graph, stream, "cudaGraphLaunch");
        if (status != cudaSuccess) return status;
        for (const std::size_t node : emulation::choose_order(graph->nodes, device.turns)) {
            emulation::enqueue(stream, graph->nodes[node].operation);
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
