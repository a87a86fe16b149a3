// A captured sequence of work on a stream, which one call launches.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <functional>

#include "host/gpu/device_array.h"

namespace vae::gpu {

// Nodes of what `work` gives the stream, which is captured and dropped: nothing of it is done. As
// for Graph, but libraries may load meanwhile what they need.
std::size_t count_nodes(const Stream& stream, const std::function<void()>& work);

class Graph {
  public:
    // What `work` gives the stream, and others that it forks and joins, is captured and not done.
    // Work must not wait for the device or allocate on it. Throws CudaError; an exception of
    // `work` ends the capture and comes through.
    Graph(const Stream& stream, const std::function<void()>& work);
    ~Graph();
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;
    Graph(Graph&&) = delete;
    Graph& operator=(Graph&&) = delete;

    // Does all of it, in order with what else the stream is given.
    void launch(const Stream& stream) const;
    // Kernels, copies, fills and recorded events in it.
    std::size_t nodes() const { return nodes_; }

  private:
    cudaGraphExec_t graph_ = nullptr;
    std::size_t nodes_ = 0;
};

}  // namespace vae::gpu
