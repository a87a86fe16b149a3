// Stream capture and graphs.
#include <gmock/gmock.h>

#include "emulation_fixture.h"

namespace emulation {
namespace {

using testing::ElementsAre;
using testing::Pair;

__global__ void add_kernel(int* value, const int* amount) {
    *value += *amount;
}
__global__ void times_kernel(int* value, int factor) {
    *value *= factor;
}

class Graph : public EmulationTest {
  protected:
    void begin(cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal) const {
        ASSERT_EQ(cudaStreamBeginCapture(stream(), mode), cudaSuccess);
    }
    cudaError_t end(cudaGraph_t* graph) const { return cudaStreamEndCapture(stream(), graph); }

    void run_and_destroy(cudaGraph_t graph) const {
        cudaGraphExec_t executable = nullptr;
        ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
        ASSERT_EQ(cudaGraphDestroy(graph), cudaSuccess);
        ASSERT_EQ(cudaGraphLaunch(executable, stream()), cudaSuccess);
        ASSERT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
        ASSERT_EQ(synchronize(), cudaSuccess);
    }
};

TEST_F(Graph, RemembersAndRepeats) {
    const Buffer<int> value(std::vector{1});
    const Buffer<int> amount(std::vector{2});
    begin();
    cudaStreamCaptureStatus state = cudaStreamCaptureStatusNone;
    ASSERT_EQ(cudaStreamIsCapturing(stream(), &state), cudaSuccess);
    EXPECT_EQ(state, cudaStreamCaptureStatusActive);
    launch(add_kernel, 1, 1, 0, value.data(), amount.data());
    launch(times_kernel, 1, 1, 0, value.data(), 10);
    ASSERT_EQ(cudaMemsetAsync(amount.data(), 0, 1, stream()), cudaSuccess);
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(end(&graph), cudaSuccess);
    EXPECT_EQ(pending_operations(), 0u);

    std::size_t count = 0;
    ASSERT_EQ(cudaGraphGetNodes(graph, nullptr, &count), cudaSuccess);
    ASSERT_EQ(count, 3u);
    std::vector<cudaGraphNode_t> nodes(count);
    ASSERT_EQ(cudaGraphGetNodes(graph, nodes.data(), &count), cudaSuccess);
    cudaGraphNodeType type = cudaGraphNodeTypeEmpty;
    ASSERT_EQ(cudaGraphNodeGetType(nodes[2], &type), cudaSuccess);
    EXPECT_EQ(type, cudaGraphNodeTypeMemset);

    cudaGraphExec_t executable = nullptr;
    ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
    ASSERT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    ASSERT_EQ(cudaGraphUpload(executable, stream()), cudaSuccess);
    for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaGraphLaunch(executable, stream()), cudaSuccess);
    ASSERT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
    EXPECT_THAT(value.download(), ElementsAre(1)) << "lazy, too";
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(value.download(), ElementsAre(3000));
    EXPECT_THAT(launches(), ElementsAre(Pair("add_kernel", 3u), Pair("times_kernel", 3u)));
}

// Refused while capturing, and the capture is lost.
TEST_F(Graph, RefusesWhatCannotBeCaptured) {
    const Buffer<int> value(std::vector{1});
    int host = 0;
    void* memory = nullptr;
    const auto expect_lost = [&](cudaError_t status, const char* what) {
        EXPECT_EQ(status, cudaErrorStreamCaptureUnsupported) << what;
        cudaGraph_t graph = nullptr;
        EXPECT_EQ(end(&graph), cudaErrorStreamCaptureInvalidated) << what;
        EXPECT_EQ(graph, nullptr);
    };
    begin();
    expect_lost(cudaMalloc(&memory, 4), "an allocation");
    begin();
    expect_lost(synchronize(), "waiting for the stream");
    begin();
    expect_lost(cudaDeviceSynchronize(), "waiting for the device");
    begin();
    expect_lost(cudaMemcpy(&host, value.data(), 4, cudaMemcpyDeviceToHost), "a copy right now");
    begin();
    expect_lost(cudaMemcpyAsync(&host, value.data(), 4, cudaMemcpyDeviceToHost, stream()),
                "a copy to pageable memory");
    begin(cudaStreamCaptureModeRelaxed);
    EXPECT_EQ(cudaMalloc(&memory, 4), cudaSuccess);
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(end(&graph), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    EXPECT_EQ(cudaFree(memory), cudaSuccess);
}

TEST_F(Graph, DrawsInStreamsThatWaitAndWantsThemBack) {
    cudaStream_t other = nullptr;
    cudaEvent_t fork = nullptr;
    cudaEvent_t join = nullptr;
    ASSERT_EQ(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
    ASSERT_EQ(cudaEventCreate(&fork), cudaSuccess);
    ASSERT_EQ(cudaEventCreate(&join), cudaSuccess);
    const Buffer<int> value(std::vector{1});
    const Buffer<int> amount(std::vector{4});
    for (const bool with_join : {true, false}) {
        begin();
        launch(add_kernel, 1, 1, 0, value.data(), amount.data());
        ASSERT_EQ(cudaEventRecord(fork, stream()), cudaSuccess);
        ASSERT_EQ(cudaStreamWaitEvent(other, fork, 0), cudaSuccess);
        vae::kernels::launch("times", times_kernel, {1, 1}, other, value.data(), 3);
        ASSERT_EQ(cudaEventRecord(join, other), cudaSuccess);
        EXPECT_EQ(cudaEventSynchronize(join), cudaErrorCapturedEvent);
        cudaGraph_t lost = nullptr;
        EXPECT_EQ(end(&lost), cudaErrorStreamCaptureInvalidated);

        begin();
        launch(add_kernel, 1, 1, 0, value.data(), amount.data());
        ASSERT_EQ(cudaEventRecord(fork, stream()), cudaSuccess);
        ASSERT_EQ(cudaStreamWaitEvent(other, fork, 0), cudaSuccess);
        vae::kernels::launch("times", times_kernel, {1, 1}, other, value.data(), 3);
        ASSERT_EQ(cudaEventRecord(join, other), cudaSuccess);
        if (with_join) {
            ASSERT_EQ(cudaStreamWaitEvent(stream(), join, 0), cudaSuccess);
        }
        cudaGraph_t graph = nullptr;
        EXPECT_EQ(end(&graph), with_join ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
        if (with_join) {
            EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
        }
    }
    EXPECT_EQ(cudaEventDestroy(fork), cudaSuccess);
    EXPECT_EQ(cudaEventDestroy(join), cudaSuccess);
    EXPECT_EQ(cudaStreamDestroy(other), cudaSuccess);
}

// A second stream and an event to draw it in.
class ForkedGraph : public Graph {
  protected:
    void SetUp() override {
        Graph::SetUp();
        ASSERT_EQ(cudaStreamCreateWithFlags(&side_, cudaStreamNonBlocking), cudaSuccess);
        ASSERT_EQ(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), cudaSuccess);
    }
    void TearDown() override {
        EXPECT_EQ(cudaEventDestroy(event_), cudaSuccess);
        EXPECT_EQ(cudaStreamDestroy(side_), cudaSuccess);
        Graph::TearDown();
    }

    cudaStream_t side() const { return side_; }
    // What `later` does from now on comes after what `earlier` did so far.
    void order(cudaStream_t earlier, cudaStream_t later) const {
        ASSERT_EQ(cudaEventRecord(event_, earlier), cudaSuccess);
        ASSERT_EQ(cudaStreamWaitEvent(later, event_, 0), cudaSuccess);
    }

  private:
    cudaStream_t side_ = nullptr;
    cudaEvent_t event_ = nullptr;
};

TEST_F(ForkedGraph, TellsItsEdges) {
    const Buffer<int> value(std::vector{0, 0, 0, 0});
    begin();
    ASSERT_EQ(cudaMemsetAsync(value.data(), 1, 4, stream()), cudaSuccess);
    order(stream(), side());
    ASSERT_EQ(cudaMemsetAsync(value.data() + 1, 1, 4, side()), cudaSuccess);
    ASSERT_EQ(
        cudaMemcpyAsync(value.data() + 2, value.data(), 4, cudaMemcpyDeviceToDevice, stream()),
        cudaSuccess);
    order(side(), stream());
    ASSERT_EQ(cudaMemsetAsync(value.data() + 3, 1, 4, stream()), cudaSuccess);
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(end(&graph), cudaSuccess);

    std::size_t count = 4;
    std::vector<cudaGraphNode_t> nodes(count);
    ASSERT_EQ(cudaGraphGetNodes(graph, nodes.data(), &count), cudaSuccess);
    ASSERT_EQ(count, 4u);
    ASSERT_EQ(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &count), cudaSuccess);
    ASSERT_EQ(count, 4u);
    std::vector<cudaGraphNode_t> from(count);
    std::vector<cudaGraphNode_t> to(count);
    ASSERT_EQ(cudaGraphGetEdges(graph, from.data(), to.data(), nullptr, &count), cudaSuccess);
    EXPECT_THAT(from, ElementsAre(nodes[0], nodes[0], nodes[1], nodes[2]));
    EXPECT_THAT(to, ElementsAre(nodes[1], nodes[2], nodes[3], nodes[3]));
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
}

// The side stream writes what the main stream adds; without the join in time the main stream waits
// for it only at the end, which the capture allows. Captured in this order it looks right.
TEST_F(ForkedGraph, AMissingJoinShowsInOtherOrders) {
    const auto result_of = [&](bool with_join) {
        const Buffer<int> value(std::vector{1});
        const Buffer<int> amount(std::vector{0});
        const Buffer<int> source(std::vector{4});
        begin();
        launch(times_kernel, 1, 1, 0, value.data(), 10);
        order(stream(), side());
        EXPECT_EQ(
            cudaMemcpyAsync(amount.data(), source.data(), 4, cudaMemcpyDeviceToDevice, side()),
            cudaSuccess);
        if (with_join) order(side(), stream());
        launch(add_kernel, 1, 1, 0, value.data(), amount.data());
        if (!with_join) order(side(), stream());
        cudaGraph_t graph = nullptr;
        EXPECT_EQ(end(&graph), cudaSuccess);
        run_and_destroy(graph);
        return value.download()[0];
    };
    set_order(Order::ascending);
    EXPECT_EQ(result_of(true), 14);
    EXPECT_EQ(result_of(false), 14) << "by luck";
    set_order(Order::descending);
    EXPECT_EQ(result_of(true), 14);
    EXPECT_EQ(result_of(false), 10);
    int wrong = 0;
    for (std::uint64_t seed = 0; seed < 16; ++seed) {
        set_order(Order::random, seed);
        EXPECT_EQ(result_of(true), 14);
        if (result_of(false) != 14) ++wrong;
    }
    EXPECT_GT(wrong, 2);
    EXPECT_LT(wrong, 14);
}

// An event remembers what was captured before it, not what its stream did later.
TEST_F(ForkedGraph, AnEventIsOfItsMoment) {
    const Buffer<int> value(std::vector{1});
    set_order(Order::descending);
    begin();
    order(stream(), side());
    launch(times_kernel, 1, 1, 0, value.data(), 10);
    ASSERT_EQ(cudaMemsetAsync(value.data(), 0, 4, side()), cudaSuccess);
    order(side(), stream());
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(end(&graph), cudaSuccess);
    std::size_t count = 0;
    ASSERT_EQ(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &count), cudaSuccess);
    EXPECT_EQ(count, 0u) << "neither waits for the other";
    run_and_destroy(graph);
    EXPECT_THAT(value.download(), ElementsAre(0));
}

TEST_F(Graph, IsEndedWhereItBegan) {
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(end(&graph), cudaErrorIllegalState) << "none was begun";
    begin();
    EXPECT_EQ(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeGlobal), cudaErrorIllegalState);
    EXPECT_EQ(end(&graph), cudaErrorStreamCaptureInvalidated);
}

// Recorded at each replay, and only where there is a graph to be recorded in.
TEST_F(Graph, AnExternalEventIsOfTheReplay) {
    cudaEvent_t event = nullptr;
    ASSERT_EQ(cudaEventCreate(&event), cudaSuccess);
    EXPECT_EQ(cudaEventRecordWithFlags(event, stream(), cudaEventRecordExternal),
              cudaErrorInvalidValue);
    const Buffer<int> value(std::vector{1});
    begin();
    launch(times_kernel, 1, 1, 0, value.data(), 10);
    ASSERT_EQ(cudaEventRecordWithFlags(event, stream(), cudaEventRecordExternal), cudaSuccess);
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(end(&graph), cudaSuccess);
    float milliseconds = 0;
    EXPECT_NE(cudaEventElapsedTime(&milliseconds, event, event), cudaSuccess) << "not yet";
    run_and_destroy(graph);
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, event, event), cudaSuccess);
    EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
}

}  // namespace
}  // namespace emulation
