#include "host/backend.h"

#include <stdexcept>
#include <utility>

#include "host/error.h"

namespace vae {

LossTotals& LossTotals::operator+=(const LossTotals& other) {
    recon += other.recon;
    kl += other.kl;
    loss += other.loss;
    examples += other.examples;
    return *this;
}

SkippedSteps& SkippedSteps::operator+=(const SkippedSteps& later) {
    if (count == 0) {
        first_step = later.first_step;
        first_tensor = later.first_tensor;
    }
    count += later.count;
    return *this;
}

std::string SkippedSteps::cause() const {
    return first_tensor.empty() ? "the loss" : "the gradient of " + first_tensor;
}

std::vector<std::string> moment_names(const TrainConfig& train) {
    switch (train.optimizer) {
        case Optimizer::adam:
        case Optimizer::adamw:
            return {"adam.m", "adam.v"};
        case Optimizer::adagrad:
            return {"adagrad.sum"};
        case Optimizer::sgd:
            if (train.momentum == 0) return {};
            return {"sgd.momentum"};
    }
    throw std::logic_error("an optimiser without names of moments");
}

TrainingState start_state(const TrainConfig& train, std::vector<float> parameters) {
    TrainingState state;
    state.moments.assign(moment_names(train).size(), std::vector<float>(parameters.size(), 0.0F));
    if (train.ema > 0) state.ema = parameters;
    state.parameters = std::move(parameters);
    return state;
}

const char* name_of(Precision precision) {
    switch (precision) {
        case Precision::automatic:
            return "auto";
        case Precision::fp32:
            return "fp32";
        case Precision::tf32:
            return "tf32";
        case Precision::bf16:
            return "bf16";
    }
    return "";
}

const char* name_of(FusionPlan plan) {
    switch (plan) {
        case FusionPlan::automatic:
            return "auto";
        case FusionPlan::cublas:
            return "cublas";
        case FusionPlan::epilogue:
            return "epilogue";
        case FusionPlan::fused:
            return "fused";
    }
    return "";
}

const char* name_of(Activation activation) {
    switch (activation) {
        case Activation::relu:
            return "relu";
        case Activation::tanh:
            return "tanh";
        case Activation::softplus:
            return "softplus";
        case Activation::gelu:
            return "gelu";
        case Activation::silu:
            return "silu";
        case Activation::gated:
            return "gated";
    }
    return "";
}

StepProfile Backend::profile(const TrainRequest&) {
    throw InputError("--profile measures the kernels of the CUDA backend; \"" + name() +
                     "\" has none: use --backend cuda, or perf for a program on the CPU");
}

}  // namespace vae
