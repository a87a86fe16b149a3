// The CUDA backend: host/backend.h on one device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "host/backend.h"
#include "host/gpu/device_array.h"
#include "host/gpu/device_data.h"
#include "host/gpu/network.h"
#include "host/gpu/optimizer.h"
#include "host/gpu/training_steps.h"
#include "host/noise.h"
#include "host/output_layer.h"
#include "kernels/loss_totals.h"

namespace vae::gpu {

// Running loss totals of an evaluation on the device.
class TotalsOnDevice {
  public:
    TotalsOnDevice(const Stream& stream, DeviceArena& arena)
        : stream_(stream), sums_(arena, 1, "the loss totals") {}

    // From zero.
    void begin() { sums_.zero(stream_); }
    // Of the network's examples [0, examples).
    void add(const Network& network, int examples, double beta);
    // Waits.
    LossTotals take() const;

  private:
    const Stream& stream_;
    DeviceArray<kernels::LossSums> sums_;
};

// The training examples index[0 … rows) as a step sees them.
struct TrainingBatch {
    const std::uint32_t* index = nullptr;  // device
    const std::uint32_t* slots = nullptr;  // device: in the ring, if examples are streamed
    int rows = 0;
    std::uint64_t step = 0;                     // counted from 0 …
    const kernels::StepState* state = nullptr;  // … unless there is a state on the device
};

// What encode() returns, of its examples at a time, on the device.
struct EncodedPosteriors {
    EncodedPosteriors(int count, const Heads& heads, DeviceArena& arena);
    PosteriorOutputs get() {
        return {.mu = mu.data(), .logvar = logvar.data(), .tril = tril.data()};
    }

    std::size_t examples;
    DeviceArray<float> mu;      // [examples, latent]
    DeviceArray<float> logvar;  // [examples, latent]
    DeviceArray<float> tril;    // [examples, heads.tril_size()]
};

// The device that a backend uses, and what its matrix products compute with.
struct SelectedDevice {
    std::string name;
    Precision precision = Precision::fp32;
    bool has_tf32 = false;  // and bf16
};

// Where train.plan = "auto" has its plan from: what was measured and kept for such steps
// (plan_cache.h), or counting where nothing was; or counting always.
enum class AutoPlan { kept, counted };

class CudaBackend : public Backend {
  public:
    // Uses device 0. All of its memory there, but for the data and a trace, is allocated here.
    // Throws kernels::CudaError when CUDA fails, RunError when the device is too full, which says
    // what would fit, InputError when the device does not have the precision or the plan that the
    // configuration asks for.
    CudaBackend(const Config& config, const ParameterLayout& layout,
                AutoPlan auto_plan = AutoPlan::kept);

    // Bytes that a backend for this configuration allocates at its start.
    static std::size_t bytes_needed(const Config& config, const ParameterLayout& layout,
                                    const SelectedDevice& device);

    ~CudaBackend() override;
    CudaBackend(const CudaBackend&) = delete;
    CudaBackend& operator=(const CudaBackend&) = delete;
    CudaBackend(CudaBackend&&) = delete;
    CudaBackend& operator=(CudaBackend&&) = delete;

    std::string name() const override { return "cuda"; }
    bool queues_steps() const override { return true; }
    std::string device() const override { return device_.name; }
    Precision precision() const override { return device_.precision; }
    std::string plan() const override;
    std::size_t device_bytes() const override { return arena_.bytes(); }
    void set_data(const Splits& splits) override;
    std::string data_note() const override { return data_.note(); }
    void set_state(const TrainingState& state) override;
    TrainingState state() override;
    std::vector<double> exact_parameters() override;
    std::vector<double> exact_ema() override;
    void train(const TrainRequest& request) override;
    StepProfile profile(const TrainRequest& request) override;
    void close_totals() override { optimizer_.close_totals(); }
    TrainTotals take_totals() override { return optimizer_.take_totals(); }
    LossTotals evaluate(Split split, double beta) override;
    void draw(const DrawRequest& request,
              const std::function<void(const DrawBlock&)>& visit) override;
    Posterior encode(std::span<const float> x) override;
    std::vector<float> decode(std::span<const float> z) override;
    std::vector<float> outputs(std::span<const float> z) override;
    std::vector<float> examples(Split split, std::span<const std::uint32_t> rows) override;
    Trace trace(const TrainRequest& one_step) override;
    void set_stepping(Stepping stepping) { steps_.set_stepping(stepping); }
    // Of data that are set and streamed from then on.
    void set_window_bytes(std::size_t bytes) { window_bytes_ = bytes; }

    StepPlan step_plan() const { return network_.plan(); }
    int graph_steps() const { return steps_.graph_steps(); }
    // Matrix products of the steps and evaluations so far, each once.
    std::vector<MatmulProduct> products() const { return network_.matmul().products(); }

  private:
    // While it lives the network reads the average of the parameters, if there is one.
    class AveragedParameters {
      public:
        explicit AveragedParameters(CudaBackend& backend);
        ~AveragedParameters();
        AveragedParameters(const AveragedParameters&) = delete;
        AveragedParameters& operator=(const AveragedParameters&) = delete;
        AveragedParameters(AveragedParameters&&) = delete;
        AveragedParameters& operator=(AveragedParameters&&) = delete;

      private:
        Network& network_;
    };

    // Reserves memory and allocates none: nothing else can be called.
    CudaBackend(const Config& config, const ParameterLayout& layout, SelectedDevice device,
                AutoPlan auto_plan);

    // Throws std::invalid_argument for a batch that is larger than the network's buffers.
    void check_capacity(const TrainRequest& request) const;
    const Dataset& data(Split split) const { return data_.of(split); }
    kernels::NoiseStream noise(Purpose purpose, std::uint64_t step) const;
    kernels::NoiseStream noise(Purpose purpose, const TrainingBatch& batch) const;
    // How training sees the pixels of a batch, and evaluation those of any.
    PixelSource training_pixels(const TrainingBatch& batch) const;
    PixelSource evaluation_pixels() const;
    // What a training step does.
    StepParts step_parts();
    // x from rows of a split, which are offset + index[0 … rows) on the device, as evaluation sees
    // them.
    void gather_evaluation(Split split, std::span<const std::uint32_t> rows,
                           const std::uint32_t* index, std::uint32_t offset);
    kernels::EpsilonSource epsilon_of(const TrainingBatch& batch) const;
    // From x of the network to the decoder's output.
    void forward(const TrainingBatch& batch, const PosteriorOutputs& outputs);
    // Of examples that are encoded. Fills all but where the block is.
    void draw_block(const kernels::EpsilonSource& noise, bool wants_z, DrawBlock& block);
    // Copies rows to index_, in order with what is queued. Waits for the last such copy alone.
    void upload_index(std::span<const std::uint32_t> rows);
    // Of the network's losses as they are now; the running totals of training stay as they are.
    double mean_loss(int examples, double beta);
    // Calls visit(first row, rows) after each batch of z is decoded.
    template <class Visit>
    void decode_batches(std::span<const float> z, const char* caller, const Visit& visit);
    // What the decoder's outputs are, from their product.
    std::vector<NamedOutputs> named_outputs(std::size_t examples);

    const Config config_;  // with the plan that is kept, if one is taken
    const ParameterLayout layout_;
    const SelectedDevice device_;
    DeviceArena arena_{"training"};
    Stream stream_;
    Network network_;
    DeviceOptimizer optimizer_;
    TrainingSteps steps_;
    DeviceData data_;
    std::size_t window_bytes_ = kWindowBytes;
    DeviceArray<std::uint32_t> identity_;  // 0, 1, …, capacity − 1
    DeviceArray<std::uint32_t> index_;
    TotalsOnDevice totals_;
    EncodedPosteriors encoded_;
    PinnedArray<std::uint32_t> staged_index_;
    Event index_uploaded_;
    std::uint64_t steps_done_ = 0;
};

}  // namespace vae::gpu
