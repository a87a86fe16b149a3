#include "host/checkpoint.h"

#include <fmt/format.h>

#include <charconv>
#include <map>
#include <set>
#include <type_traits>

#include "host/config_file.h"
#include "host/error.h"
#include "host/safetensors.h"
#include "host/version.h"

namespace vae {

namespace {

constexpr const char* kFormat = "vae-checkpoint";
constexpr const char* kFormatVersion = "1";
constexpr std::size_t kMostPixels = std::size_t{1} << 31;

using Metadata = std::map<std::string, std::string>;

// Reads the metadata of the file called `name`.
class MetadataReader {
  public:
    MetadataReader(const Metadata& metadata, std::string name)
        : metadata_(metadata), name_(std::move(name)) {}

    const std::string& text(const std::string& key) const {
        const auto found = metadata_.find(key);
        if (found == metadata_.end()) {
            throw InputError(
                fmt::format("{}: not a whole checkpoint: its metadata has no \"{}\"", name_, key));
        }
        return found->second;
    }

    bool has(const std::string& key) const { return metadata_.count(key) > 0; }

    template <class Number>
    Number number(const std::string& key) const {
        return parse<Number>(key, text(key));
    }

    ImageShape image(const std::string& key) const {
        const std::string& all = text(key);
        const std::size_t first = all.find('x');
        const std::size_t second = first == std::string::npos ? first : all.find('x', first + 1);
        if (second == std::string::npos) throw unreadable(key, all);
        const ImageShape shape = {
            .height = parse<std::uint32_t>(key, all.substr(0, first)),
            .width = parse<std::uint32_t>(key, all.substr(first + 1, second - first - 1)),
            .channels = parse<std::uint32_t>(key, all.substr(second + 1))};
        if (shape.pixels() == 0 || shape.pixels() > kMostPixels) throw unreadable(key, all);
        return shape;
    }

  private:
    InputError unreadable(const std::string& key, const std::string& value) const {
        return InputError(
            fmt::format("{}: metadata \"{}\" is \"{}\": not readable", name_, key, value));
    }

    template <class Number>
    Number parse(const std::string& key, const std::string& value) const {
        Number number{};
        const char* end = value.data() + value.size();
        const auto [stop, error] = std::from_chars(value.data(), end, number);
        if (error != std::errc() || stop != end) throw unreadable(key, value);
        return number;
    }

    const Metadata& metadata_;
    std::string name_;
};

template <class Values>
struct Arena {
    std::string prefix;  // of its tensors' names
    Values* values;
};

// Of a state with the moments and the average of `train`. State is TrainingState, const or not.
template <class State>
auto arenas_of(const TrainConfig& train, State& state) {
    std::vector<Arena<std::remove_reference_t<decltype((state.parameters))>>> arenas;
    arenas.push_back({"", &state.parameters});
    const std::vector<std::string> moments = moment_names(train);
    for (std::size_t i = 0; i < moments.size(); ++i) {
        arenas.push_back({moments[i] + '.', &state.moments.at(i)});
    }
    if (train.ema > 0) arenas.push_back({"ema.", &state.ema});
    return arenas;
}

// Copies the file's tensors into the arenas; each must be there in the right shape.
void load_state(const SafetensorsFile& file, const std::string& name, const ParameterLayout& layout,
                const TrainConfig& train, TrainingState& state) {
    std::set<std::string> wanted;
    state.moments.resize(moment_names(train).size());
    for (const auto& arena : arenas_of(train, state)) {
        std::vector<float>& values = *arena.values;
        values.assign(layout.arena_size, 0.0F);
        for (const Tensor& tensor : layout.tensors()) {
            const std::string key = arena.prefix + tensor.name;
            wanted.insert(key);
            if (!file.contains(key)) {
                throw InputError(fmt::format("{}: tensor {} is missing", name, key));
            }
            const LoadedTensor loaded = file.tensor(key);
            const auto* floats = std::get_if<std::vector<float>>(&loaded.values);
            if (loaded.shape != tensor.shape || floats == nullptr) {
                throw InputError(fmt::format(
                    "{}: tensor {} is {}{}, but its settings imply {} of F32", name, key,
                    to_text(loaded.shape), floats == nullptr ? " of another type" : "",
                    to_text(tensor.shape)));
            }
            std::copy(floats->begin(), floats->end(),
                      values.begin() + static_cast<std::ptrdiff_t>(tensor.offset));
        }
    }
    for (const std::string& key : file.names()) {
        if (wanted.count(key) == 0) {
            throw InputError(
                fmt::format("{}: tensor {} does not belong to its settings", name, key));
        }
    }
}

// Files of before steps could be skipped say nothing of them.
SkippedSteps skipped_of(const MetadataReader& metadata) {
    if (!metadata.has("epoch_skipped")) return {};
    return {.count = metadata.number<std::uint64_t>("epoch_skipped"),
            .first_step = metadata.number<std::uint64_t>("epoch_first_skipped_step"),
            .first_tensor = metadata.text("epoch_first_skipped_tensor")};
}

}  // namespace

void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
    const ParameterLayout layout = checkpoint.layout();
    std::vector<SafeTensor> tensors;
    for (const auto& arena : arenas_of(checkpoint.config.train, checkpoint.state)) {
        const std::span<const float> values = *arena.values;
        for (const Tensor& tensor : layout.tensors()) {
            tensors.push_back({arena.prefix + tensor.name, tensor.shape,
                               values.subspan(tensor.offset, tensor.size)});
        }
    }
    const auto& [totals, skipped] = checkpoint.epoch_totals;
    Metadata metadata = {
        {"format", kFormat},
        {"format_version", kFormatVersion},
        {"program_version", program_version()},
        {"config", to_toml(checkpoint.config)},
        {"step", fmt::format("{}", checkpoint.state.step)},
        {"running_mean", fmt::format("{}", checkpoint.state.running_mean)},
        {"seed", fmt::format("{}", checkpoint.config.train.seed)},
        {"image", to_text(checkpoint.shape)},
        {"train_examples", fmt::format("{}", checkpoint.train_examples)},
        {"epoch_recon", fmt::format("{}", totals.recon)},
        {"epoch_kl", fmt::format("{}", totals.kl)},
        {"epoch_loss", fmt::format("{}", totals.loss)},
        {"epoch_examples", fmt::format("{}", totals.examples)},
        {"epoch_skipped", fmt::format("{}", skipped.count)},
        {"epoch_first_skipped_step", fmt::format("{}", skipped.first_step)},
        {"epoch_first_skipped_tensor", skipped.first_tensor},
        {"epoch_seconds", fmt::format("{}", checkpoint.epoch_seconds)},
    };
    if (checkpoint.config.train.patience > 0) {
        const EarlyStopping& early = checkpoint.early_stopping;
        metadata["best_elbo"] = fmt::format("{}", early.best_elbo);
        metadata["best_epoch"] = fmt::format("{}", early.best_epoch);
        metadata["stale_epochs"] = fmt::format("{}", early.stale_epochs);
    }
    write_safetensors(path, tensors, metadata);
}

Checkpoint load_checkpoint(const std::filesystem::path& path) {
    const std::string name = path.string();
    const SafetensorsFile file(path);
    const MetadataReader metadata(file.metadata(), name);
    if (file.metadata().count("format") == 0 || metadata.text("format") != kFormat) {
        throw InputError(
            fmt::format("{}: safetensors, but not a checkpoint of this program", name));
    }
    if (metadata.text("format_version") != kFormatVersion) {
        throw InputError(fmt::format("{}: format version {}, but this program ({}) reads {}", name,
                                     metadata.text("format_version"), program_version(),
                                     kFormatVersion));
    }
    Checkpoint checkpoint;
    checkpoint.config = from_toml(metadata.text("config"), name + " (config)");
    checkpoint.shape = metadata.image("image");
    checkpoint.train_examples = metadata.number<std::uint64_t>("train_examples");
    checkpoint.state.step = metadata.number<std::uint64_t>("step");
    // Of the score function alone, and of later versions.
    if (file.metadata().count("running_mean") > 0) {
        checkpoint.state.running_mean = metadata.number<double>("running_mean");
    }
    checkpoint.epoch_totals.losses = {.recon = metadata.number<double>("epoch_recon"),
                                      .kl = metadata.number<double>("epoch_kl"),
                                      .loss = metadata.number<double>("epoch_loss"),
                                      .examples = metadata.number<std::uint64_t>("epoch_examples")};
    checkpoint.epoch_totals.skipped = skipped_of(metadata);
    checkpoint.epoch_seconds = metadata.number<double>("epoch_seconds");
    if (checkpoint.config.train.patience > 0) {
        checkpoint.early_stopping = {
            .best_elbo = metadata.number<double>("best_elbo"),
            .best_epoch = metadata.number<std::uint32_t>("best_epoch"),
            .stale_epochs = metadata.number<std::uint32_t>("stale_epochs")};
    }
    checkpoint.program_version = metadata.text("program_version");
    load_state(file, name, checkpoint.layout(), checkpoint.config.train, checkpoint.state);
    return checkpoint;
}

}  // namespace vae
