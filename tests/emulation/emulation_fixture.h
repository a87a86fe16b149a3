// What the tests of the emulation share: a stream, memory, and a device that starts fresh.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <vector>

#include "emulation.h"
#include "kernels/launch.h"

namespace emulation {

// Memory on the device, as a vector: what is not uploaded is poison.
template <class T>
class Buffer {
  public:
    explicit Buffer(std::size_t size) : size_(size) {
        vae::kernels::cuda_check(cudaMalloc(&data_, size * sizeof(T)), "cudaMalloc");
    }
    explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
        vae::kernels::cuda_check(
            cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), "upload");
    }
    ~Buffer() { (void)cudaFree(data_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&&) = delete;
    Buffer& operator=(Buffer&&) = delete;

    T* data() const { return data_; }
    std::size_t bytes() const { return size_ * sizeof(T); }

    // As it is now, whatever may be pending.
    std::vector<T> download() const {
        std::vector<T> values(size_);
        vae::kernels::cuda_check(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost),
                                 "download");
        return values;
    }

  private:
    std::size_t size_;
    T* data_ = nullptr;
};

inline constexpr Order kOrders[] = {Order::ascending, Order::descending, Order::random};

class EmulationTest : public testing::Test {
  protected:
    void SetUp() override {
        reset();
        vae::kernels::cuda_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                                 "cudaStreamCreateWithFlags");
    }
    void TearDown() override {
        reset();
        EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess);
        EXPECT_EQ(live(), Live{}) << "something was not freed";
        reset();
    }

    cudaStream_t stream() const { return stream_; }
    cudaError_t synchronize() const { return cudaStreamSynchronize(stream_); }

    template <class... Parameters>
    void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared,
                std::type_identity_t<Parameters>... arguments) const {
        vae::kernels::launch("test", kernel, {grid, block, shared}, stream_, arguments...);
    }

    // Runs one warp of a kernel, which must die in every order of what the message says, in this
    // file.
    template <class... Parameters>
    void expect_end(const std::string& reason, const char* file, void (*kernel)(Parameters...),
                    std::type_identity_t<Parameters>... arguments) {
        for (const Order order : kOrders) {
            reset();
            set_order(order, 9);
            launch(kernel, 1, 32, 4096, arguments...);
            EXPECT_EQ(synchronize(), cudaErrorLaunchFailure);
            EXPECT_TRUE(last_message_has(reason)) << last_message();
            EXPECT_TRUE(last_message_has(std::string(file) + ":")) << last_message();
        }
        reset();
    }

    static bool last_message_has(const std::string& part) {
        return last_message().find(part) != std::string::npos;
    }

  private:
    cudaStream_t stream_ = nullptr;
};

}  // namespace emulation
