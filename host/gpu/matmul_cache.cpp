#include "host/gpu/matmul_cache.h"

#include <exception>
#include <string>
#include <vector>

#include "host/gpu/tuning_file.h"

namespace vae::gpu {
namespace {

constexpr const char* kList = "algorithms";

TuningEntry key_of(const TunedDevice& device, const MatmulProduct& product) {
    TuningEntry key = key_of(device);
    key.update({{"product", name_of(product.kind)},
                {"types", name_of(product.types)},
                {"epilogue", name_of(product.epilogue)},
                {"rows", product.rows},
                {"in", product.in},
                {"out", product.out},
                {"alignment", product.alignment}});
    return key;
}

MatmulProduct product_of(const TuningEntry& entry) {
    return {
        .kind = enumerator(entry.at("product"), {MatmulKind::forward, MatmulKind::backward_input,
                                                 MatmulKind::backward_weight}),
        .types = enumerator(entry.at("types"), {MatmulTypes::fp32, MatmulTypes::tf32,
                                                MatmulTypes::bf16, MatmulTypes::bf16_to_fp32}),
        .epilogue = enumerator(entry.at("epilogue"),
                               {MatmulEpilogue::none, MatmulEpilogue::bias_relu,
                                MatmulEpilogue::relu_backward, MatmulEpilogue::bias_gradient}),
        .rows = entry.at("rows").get<int>(),
        .in = entry.at("in").get<int>(),
        .out = entry.at("out").get<int>(),
        .alignment = entry.at("alignment").get<int>()};
}

}  // namespace

const char* name_of(MatmulKind kind) {
    switch (kind) {
        case MatmulKind::forward:
            return "forward";
        case MatmulKind::backward_input:
            return "backward-input";
        case MatmulKind::backward_weight:
            return "backward-weight";
    }
    return "";
}

const char* name_of(MatmulTypes types) {
    switch (types) {
        case MatmulTypes::fp32:
            return "fp32";
        case MatmulTypes::tf32:
            return "tf32";
        case MatmulTypes::bf16:
            return "bf16";
        case MatmulTypes::bf16_to_fp32:
            return "bf16-to-fp32";
    }
    return "";
}

const char* name_of(MatmulEpilogue epilogue) {
    switch (epilogue) {
        case MatmulEpilogue::none:
            return "none";
        case MatmulEpilogue::bias_relu:
            return "bias-relu";
        case MatmulEpilogue::relu_backward:
            return "relu-backward";
        case MatmulEpilogue::bias_gradient:
            return "bias-gradient";
    }
    return "";
}

MatmulCache::MatmulCache(const TunedDevice& device) {
    for (const TuningEntry& entry : read_tuning(kList)) {
        try {
            const MatmulProduct product = product_of(entry);
            if (!is_of(entry, key_of(device, product))) continue;
            algorithms_[product] = {.words = entry.at("algorithm").get<MeasuredAlgorithm::Words>(),
                                    .microseconds = entry.at("microseconds").get<double>(),
                                    .nodes = entry.at("nodes").get<int>()};
        } catch (const std::exception&) {
            continue;  // of a program that writes other entries, or damaged
        }
    }
}

const MeasuredAlgorithm* MatmulCache::find(const MatmulProduct& product) const {
    const auto found = algorithms_.find(product);
    return found == algorithms_.end() ? nullptr : &found->second;
}

std::optional<std::filesystem::path> save_matmul_algorithms(
    const TunedDevice& device, const std::map<MatmulProduct, MeasuredAlgorithm>& algorithms) {
    std::vector<TuningResult> results;
    results.reserve(algorithms.size());
    for (const auto& [product, measured] : algorithms) {
        results.push_back({key_of(device, product),
                           {{"algorithm", measured.words},
                            {"microseconds", measured.microseconds},
                            {"nodes", measured.nodes}}});
    }
    return save_tuning(kList, results);
}

}  // namespace vae::gpu
