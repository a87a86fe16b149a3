// Kernels that may begin before what is ahead of them has ended.
#include <gmock/gmock.h>

#include "emulation_fixture.h"

namespace emulation {
namespace {

using testing::ElementsAre;

__global__ void write_kernel(int* value, int number) {
    cudaTriggerProgrammaticLaunchCompletion();
    value[threadIdx.x] = number;
}

// Threads from `waiting` on do not wait for the kernel ahead.
__global__ void add_one_kernel(int* value, unsigned waiting) {
    if (threadIdx.x < waiting) cudaGridDependencySynchronize();
    __syncthreads();
    value[threadIdx.x] += 1;
}

class ProgrammaticLaunch : public EmulationTest {
  protected:
    void launch_early(int* value, unsigned waiting, int allowed = 1) const {
        cudaLaunchAttribute attribute = {};
        attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attribute.val.programmaticStreamSerializationAllowed = allowed;
        cudaLaunchConfig_t config = {};
        config.gridDim = 1;
        config.blockDim = 4;
        config.stream = stream();
        config.attrs = &attribute;
        config.numAttrs = 1;
        ASSERT_EQ(cudaLaunchKernelEx(&config, add_one_kernel, value, waiting), cudaSuccess);
    }
};

TEST_F(ProgrammaticLaunch, RunsAKernelThatWaits) {
    const Buffer<int> value(4);
    launch(write_kernel, 1, 4, 0, value.data(), 6);
    launch_early(value.data(), 4);
    ASSERT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(value.download(), ElementsAre(7, 7, 7, 7));
}

TEST_F(ProgrammaticLaunch, AThreadThatDoesNotWaitBreaksTheDevice) {
    const Buffer<int> value(4);
    launch(write_kernel, 1, 4, 0, value.data(), 6);
    launch_early(value.data(), 3);
    EXPECT_EQ(synchronize(), cudaErrorLaunchFailure);
    EXPECT_TRUE(last_message_has("add_one_kernel"));
    EXPECT_TRUE(last_message_has("thread (3, 0, 0) of block (0, 0, 0)"));
    EXPECT_TRUE(last_message_has("cudaGridDependencySynchronize"));
}

TEST_F(ProgrammaticLaunch, WithoutTheAttributeNobodyMustWait) {
    const Buffer<int> value(std::vector{0, 1, 2, 3});
    launch_early(value.data(), 0, 0);
    launch(add_one_kernel, 1, 4, 0, value.data(), 2u);
    EXPECT_EQ(synchronize(), cudaSuccess);
    EXPECT_THAT(value.download(), ElementsAre(2, 3, 4, 5));
}

TEST_F(ProgrammaticLaunch, IsAnEdgeOfItsKindInAGraph) {
    const Buffer<int> value(4);
    ASSERT_EQ(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeGlobal), cudaSuccess);
    ASSERT_EQ(cudaMemsetAsync(value.data(), 0, 16, stream()), cudaSuccess);
    launch_early(value.data(), 4);
    launch_early(value.data(), 4);
    launch(write_kernel, 1, 1, 0, value.data(), 9);
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(cudaStreamEndCapture(stream(), &graph), cudaSuccess);

    std::size_t count = 3;
    std::vector<cudaGraphNode_t> from(count);
    std::vector<cudaGraphNode_t> to(count);
    std::vector<cudaGraphEdgeData> data(count);
    EXPECT_EQ(cudaGraphGetEdges(graph, from.data(), to.data(), nullptr, &count),
              cudaErrorLossyQuery);
    ASSERT_EQ(cudaGraphGetEdges(graph, from.data(), to.data(), data.data(), &count), cudaSuccess);
    ASSERT_EQ(count, 3u);
    EXPECT_EQ(data[0].type, 0) << "a fill is ahead of it";
    EXPECT_EQ(data[1].type, cudaGraphDependencyTypeProgrammatic);
    EXPECT_EQ(data[1].from_port, cudaGraphKernelNodePortProgrammatic);
    EXPECT_EQ(data[2].type, 0);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
}

}  // namespace
}  // namespace emulation
