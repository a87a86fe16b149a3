// Device memory for tests of kernels: arrays between guards, filled with NaN, on a stream of their
// own. Uses only the CUDA runtime.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/scratch.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size)
#define ASAN_UNPOISON_MEMORY_REGION(address, size)
#endif

namespace vae::test {

inline void check_cuda(cudaError_t status, const char* what) {
    if (status != cudaSuccess) {
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
    }
}

class TestStream {
  public:
    TestStream() {
        check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
    }
    ~TestStream() { EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess); }
    TestStream(const TestStream&) = delete;
    TestStream& operator=(const TestStream&) = delete;
    TestStream(TestStream&&) = delete;
    TestStream& operator=(TestStream&&) = delete;

    cudaStream_t get() const { return stream_; }
    void synchronize() const { check_cuda(cudaStreamSynchronize(stream_), "synchronize"); }

  private:
    cudaStream_t stream_ = nullptr;
};

// size elements of device memory between guards. The guards are NaNs of their own kind, so that
// reading them shows in any sum, and are checked on destruction, so that writing them shows as
// well; AddressSanitizer reports both at once. What is not uploaded is 0xFF in every byte, a NaN
// for floats. shift moves the array by so many elements from its 256-byte alignment.
template <class T>
class DeviceArray {
  public:
    DeviceArray(const TestStream& stream, std::size_t size, std::size_t shift = 0)
        : stream_(stream), size_(size), front_(kGuard + shift * sizeof(T)) {
        check_cuda(cudaMalloc(&memory_, bytes()), "allocate");
        std::vector<unsigned char> fill(bytes(), 0xFF);
        for (std::size_t i = 0; i < fill.size(); ++i) {
            if (is_guard(i)) fill[i] = guard_byte(i);
        }
        copy(memory_, fill.data(), fill.size(), cudaMemcpyHostToDevice);
        ASAN_POISON_MEMORY_REGION(memory_, front_);
        ASAN_POISON_MEMORY_REGION(memory_ + back(), kGuard);
    }
    DeviceArray(const TestStream& stream, const std::vector<T>& values, std::size_t shift = 0)
        : DeviceArray(stream, values.size(), shift) {
        if (size_ > 0) copy(data(), values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice);
    }
    ~DeviceArray() {
        try {
            EXPECT_TRUE(guards_intact()) << "a write before or after an array";
        } catch (const std::exception& error) {
            ADD_FAILURE() << error.what();
        }
        ASAN_UNPOISON_MEMORY_REGION(memory_, bytes());
        EXPECT_EQ(cudaFree(memory_), cudaSuccess);
    }
    DeviceArray(const DeviceArray&) = delete;
    DeviceArray& operator=(const DeviceArray&) = delete;
    DeviceArray(DeviceArray&&) = delete;
    DeviceArray& operator=(DeviceArray&&) = delete;

    T* data() { return reinterpret_cast<T*>(memory_ + front_); }
    std::size_t size() const { return size_; }

    // Waits for the stream.
    std::vector<T> download() {
        std::vector<T> values(size_);
        if (size_ > 0) copy(values.data(), data(), size_ * sizeof(T), cudaMemcpyDeviceToHost);
        return values;
    }

    bool guards_intact() {
        std::vector<unsigned char> all(bytes());
        ASAN_UNPOISON_MEMORY_REGION(memory_, bytes());
        copy(all.data(), memory_, all.size(), cudaMemcpyDeviceToHost);
        for (std::size_t i = 0; i < all.size(); ++i) {
            if (is_guard(i) && all[i] != guard_byte(i)) return false;
        }
        return true;
    }

  private:
    static constexpr std::size_t kGuard = 256;

    std::size_t back() const { return front_ + size_ * sizeof(T); }
    std::size_t bytes() const { return back() + kGuard; }
    bool is_guard(std::size_t byte) const { return byte < front_ || byte >= back(); }
    // Of the word 0xFFC5FFC5, a quiet NaN and so is each half of it as bf16, counted from the
    // array's start as its elements are.
    unsigned char guard_byte(std::size_t byte) const {
        constexpr unsigned char kWord[] = {0xC5, 0xFF, 0xC5, 0xFF};
        return kWord[(byte + 4 - front_ % 4) % 4];
    }
    void copy(void* to, const void* from, std::size_t count, cudaMemcpyKind kind) const {
        check_cuda(cudaMemcpyAsync(to, from, count, kind, stream_.get()), "copy");
        stream_.synchronize();
    }

    const TestStream& stream_;
    std::size_t size_;
    std::size_t front_;
    unsigned char* memory_ = nullptr;
};

// Scratch of exactly the size that rows × cols asks for: partials NaN, tickets zero. Checks on
// destruction that tickets are zero again.
class DeviceScratch {
  public:
    DeviceScratch(const TestStream& stream, int rows, int cols, int column_arrays = 1)
        : size_(kernels::scratch_size(rows, cols, column_arrays)),
          partials_(stream, size_.partials),
          tickets_(stream, std::vector<unsigned>(size_.tickets, 0)) {}
    ~DeviceScratch() {
        try {
            for (const unsigned ticket : tickets_.download()) {
                if (ticket != 0) {
                    ADD_FAILURE() << "a ticket is left at " << ticket;
                    break;
                }
            }
        } catch (const std::exception& error) {
            ADD_FAILURE() << error.what();
        }
    }
    DeviceScratch(const DeviceScratch&) = delete;
    DeviceScratch& operator=(const DeviceScratch&) = delete;
    DeviceScratch(DeviceScratch&&) = delete;
    DeviceScratch& operator=(DeviceScratch&&) = delete;

    kernels::Scratch get() {
        return {partials_.data(), partials_.size(), tickets_.data(), tickets_.size()};
    }

  private:
    kernels::ScratchSize size_;
    DeviceArray<float> partials_;
    DeviceArray<unsigned> tickets_;
};

// A test with a stream. A device that does not answer is a failure: where there may be none,
// tests/gpu_main.cpp asks before any test starts.
class KernelTest : public testing::Test {
  protected:
    void SetUp() override {
        int devices = 0;
        const cudaError_t status = cudaGetDeviceCount(&devices);
        ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status);
        ASSERT_GT(devices, 0);
        stream_.emplace();
    }

    const TestStream& stream() const { return *stream_; }

    template <class T>
    DeviceArray<T> upload(const std::vector<T>& values, std::size_t shift = 0) const {
        return DeviceArray<T>(*stream_, values, shift);
    }
    DeviceArray<float> output(std::size_t size, std::size_t shift = 0) const {
        return DeviceArray<float>(*stream_, size, shift);
    }

  private:
    std::optional<TestStream> stream_;
};

}  // namespace vae::test
