#include "host/gpu/graph.h"

#include <memory>
#include <type_traits>

namespace vae::gpu {
namespace {

struct DestroyGraph {
    void operator()(cudaGraph_t graph) const { (void)cudaGraphDestroy(graph); }
};
using OwnedGraph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;

OwnedGraph capture(const Stream& stream, const std::function<void()>& work,
                   cudaStreamCaptureMode mode) {
    cuda_check(cudaStreamBeginCapture(stream.get(), mode), "cudaStreamBeginCapture");
    cudaGraph_t graph = nullptr;
    try {
        work();
    } catch (...) {
        (void)cudaStreamEndCapture(stream.get(), &graph);
        (void)cudaGetLastError();
        const OwnedGraph dropped(graph);
        throw;
    }
    cuda_check(cudaStreamEndCapture(stream.get(), &graph), "cudaStreamEndCapture");
    return OwnedGraph(graph);
}

std::size_t nodes_of(const OwnedGraph& graph) {
    std::size_t nodes = 0;
    cuda_check(cudaGraphGetNodes(graph.get(), nullptr, &nodes), "cudaGraphGetNodes");
    return nodes;
}

}  // namespace

std::size_t count_nodes(const Stream& stream, const std::function<void()>& work) {
    return nodes_of(capture(stream, work, cudaStreamCaptureModeRelaxed));
}

Graph::Graph(const Stream& stream, const std::function<void()>& work) {
    // Other threads may do with CUDA what they like.
    const OwnedGraph graph = capture(stream, work, cudaStreamCaptureModeThreadLocal);
    nodes_ = nodes_of(graph);
    cuda_check(cudaGraphInstantiate(&graph_, graph.get(), 0), "cudaGraphInstantiate");
    // Else the first launch would do it.
    const cudaError_t uploaded = cudaGraphUpload(graph_, stream.get());
    if (uploaded != cudaSuccess) {
        (void)cudaGraphExecDestroy(graph_);
        cuda_check(uploaded, "cudaGraphUpload");
    }
}

Graph::~Graph() {
    (void)cudaGraphExecDestroy(graph_);
}

void Graph::launch(const Stream& stream) const {
    cuda_check(cudaGraphLaunch(graph_, stream.get()), "cudaGraphLaunch");
}

}  // namespace vae::gpu
