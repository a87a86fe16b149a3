#include "host/gpu/matmul_cache.h"

#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <system_error>

#include "host/error.h"
#include "host/files.h"

namespace vae::gpu {
namespace {

using nlohmann::ordered_json;

constexpr const char* kFile = "matmul-plans.json";

// What an entry is of; all entries of a file differ in it.
ordered_json key_of(const MatmulDevice& device, const MatmulProduct& product) {
    return {{"gpu", device.gpu},
            {"capability", device.capability},
            {"cublaslt", device.cublaslt},
            {"product", name_of(product.kind)},
            {"types", name_of(product.types)},
            {"epilogue", name_of(product.epilogue)},
            {"rows", product.rows},
            {"in", product.in},
            {"out", product.out},
            {"alignment", product.alignment}};
}

template <class T>
T enumerator(const ordered_json& name, std::initializer_list<T> all) {
    for (const T each : all) {
        if (name.get<std::string>() == name_of(each)) return each;
    }
    throw std::invalid_argument("an unknown name");
}

MatmulProduct product_of(const ordered_json& entry) {
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

// The entries of a file; none of one that is not there or is not such a file.
std::vector<ordered_json> read_entries(const std::filesystem::path& path) {
    try {
        const ordered_json file = ordered_json::parse(read_file(path));
        const ordered_json& entries = file.at("algorithms");
        return entries.is_array() ? entries.get<std::vector<ordered_json>>()
                                  : std::vector<ordered_json>();
    } catch (const InputError&) {
        return {};
    } catch (const ordered_json::exception&) {
        return {};
    }
}

bool is_of(const ordered_json& entry, const ordered_json& key) {
    if (!entry.is_object()) return false;
    for (const auto& [name, value] : key.items()) {
        const auto found = entry.find(name);
        if (found == entry.end() || *found != value) return false;
    }
    return true;
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

std::optional<std::filesystem::path> matmul_cache_path() {
    // A relative path in it is to be ignored, says its specification.
    const char* cache = std::getenv("XDG_CACHE_HOME");
    if (cache != nullptr && std::filesystem::path(cache).is_absolute()) {
        return std::filesystem::path(cache) / "vae" / kFile;
    }
    const char* home = std::getenv("HOME");
    if (home == nullptr || !std::filesystem::path(home).is_absolute()) return std::nullopt;
    return std::filesystem::path(home) / ".cache" / "vae" / kFile;
}

MatmulCache::MatmulCache(const MatmulDevice& device) {
    const auto path = matmul_cache_path();
    if (!path) return;
    for (const ordered_json& entry : read_entries(*path)) {
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
    const MatmulDevice& device, const std::map<MatmulProduct, MeasuredAlgorithm>& algorithms) {
    const auto path = matmul_cache_path();
    if (!path) return std::nullopt;
    std::vector<ordered_json> entries = read_entries(*path);
    for (const auto& [product, measured] : algorithms) {
        ordered_json entry = key_of(device, product);
        std::erase_if(entries, [&](const ordered_json& each) { return is_of(each, entry); });
        entry["algorithm"] = measured.words;
        entry["microseconds"] = measured.microseconds;
        entry["nodes"] = measured.nodes;
        entries.push_back(std::move(entry));
    }
    std::error_code error;
    std::filesystem::create_directories(path->parent_path(), error);
    if (error) {
        throw RunError(fmt::format("{}: {}", path->parent_path().string(), error.message()));
    }
    std::string text = "{\"algorithms\": [";
    for (std::size_t i = 0; i < entries.size(); ++i) {
        text += (i == 0 ? "\n  " : ",\n  ") + entries[i].dump();
    }
    write_file_atomically(*path, text + "\n]}\n");
    return path;
}

}  // namespace vae::gpu
