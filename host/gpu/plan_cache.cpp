#include "host/gpu/plan_cache.h"

#include <exception>
#include <string>
#include <vector>

#include "host/backend.h"
#include "host/gpu/network.h"
#include "host/gpu/tuning_file.h"
#include "kernels/dense.h"

namespace vae::gpu {
namespace {

constexpr const char* kList = "plans";

// The widths of a chain of layers: what the first one reads, and all products.
std::vector<std::size_t> widths_of(const HiddenShape& shape) {
    const DenseLayer& first = shape.layers.empty() ? shape.behind : shape.layers.front();
    std::vector<std::size_t> widths = {first.in};
    for (const DenseLayer& layer : shape.layers) widths.push_back(layer.out);
    widths.push_back(shape.behind.product_width());
    return widths;
}

TuningEntry key_of(const Config& config, const ParameterLayout& layout, Precision precision) {
    // A step passes no more rows than it has.
    const HiddenShapes shapes =
        hidden_shapes(config, layout, static_cast<int>(config.train.part_rows()));
    TuningEntry key = key_of(current_tuned_device());
    key.update({{"precision", name_of(precision)},
                {"activation", name_of(config.model.activation)},
                {"encoder", widths_of(shapes.encoder)},
                {"encoder_rows", shapes.encoder.training_rows},
                {"decoder", widths_of(shapes.decoder)},
                {"decoder_rows", shapes.decoder.training_rows},
                {"fusible_heads", can_fuse_heads(config)},
                {"fusible_output", can_fuse_output(config)}});
    return key;
}

}  // namespace

bool can_have(FusionPlan plan, const ModelConfig& model) {
    switch (plan) {
        case FusionPlan::automatic:
        case FusionPlan::cublas:
            break;
        case FusionPlan::epilogue:
            return model.activation == Activation::relu;
        case FusionPlan::fused:
            return kernels::has_dense_kernels();
    }
    return true;
}

std::optional<FusionPlan> kept_plan(const Config& config, const ParameterLayout& layout,
                                    Precision precision) {
    const std::vector<TuningEntry> entries = read_tuning(kList);
    if (entries.empty()) return std::nullopt;
    const TuningEntry key = key_of(config, layout, precision);
    std::optional<FusionPlan> kept;
    for (const TuningEntry& entry : entries) {
        if (!is_of(entry, key)) continue;
        try {
            kept = enumerator(entry.at("plan"), {FusionPlan::automatic, FusionPlan::cublas,
                                                 FusionPlan::epilogue, FusionPlan::fused});
        } catch (const std::exception&) {
            continue;  // of a program that has other plans, or damaged
        }
    }
    return kept && can_have(*kept, config.model) ? kept : std::nullopt;
}

std::optional<std::filesystem::path> save_plan(const Config& config, const ParameterLayout& layout,
                                               Precision precision, const MeasuredPlan& plan) {
    return save_tuning(kList,
                       {{key_of(config, layout, precision),
                         {{"plan", name_of(plan.plan)}, {"microseconds", plan.microseconds}}}});
}

}  // namespace vae::gpu
