#include "host/settings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "host/error.h"
#include "host/output_layer.h"

namespace vae {

namespace {

[[noreturn]] void refuse(const std::string& wanted, const std::string& written) {
    throw InputError(fmt::format("must be {}, not {}", wanted, written));
}

// A setting of Config, found by `field(config)`.
template <class Field>
Setting text_setting(std::string key, std::string help, Field field) {
    return {std::move(key),
            std::move(help),
            true,
            false,
            [field](Config& config, const SettingValue& value) {
                const auto* text = std::get_if<std::string>(&value.value);
                if (text == nullptr || text->empty()) refuse("a text", value.as_written);
                field(config) = *text;
            },
            [field](const Config& config) { return quote(field(config)); }};
}

template <class Choice>
using Names = std::vector<std::pair<Choice, std::string>>;

template <class Choice, class Field>
Setting choice_setting(std::string key, const std::string& help, const Names<Choice>& names,
                       Field field) {
    std::vector<std::string> words;
    for (const auto& [choice, name] : names) words.push_back(name);
    const std::string list = fmt::format("{}", fmt::join(words, ", "));
    return {std::move(key),
            fmt::format("{}: {}", help, list),
            true,
            false,
            [=](Config& config, const SettingValue& value) {
                const auto* text = std::get_if<std::string>(&value.value);
                const auto found = std::find_if(names.begin(), names.end(), [&](const auto& pair) {
                    return text != nullptr && pair.second == *text;
                });
                if (found == names.end()) refuse("one of " + list, value.as_written);
                field(config) = found->first;
            },
            [=](const Config& config) {
                const auto found = std::find_if(names.begin(), names.end(), [&](const auto& pair) {
                    return pair.first == field(config);
                });
                return quote(found == names.end() ? "" : found->second);
            }};
}

template <class Field>
Setting integer_setting(std::string key, const std::string& help, std::int64_t least,
                        std::int64_t most, Field field) {
    const bool open = most == std::numeric_limits<std::int64_t>::max();
    const std::string wanted = open ? fmt::format("an integer of at least {}", least)
                                    : fmt::format("an integer from {} to {}", least, most);
    return {std::move(key),
            fmt::format("{} ({})", help, wanted),
            false,
            false,
            [=](Config& config, const SettingValue& value) {
                const auto* number = std::get_if<std::int64_t>(&value.value);
                if (number == nullptr || *number < least || *number > most) {
                    refuse(wanted, value.as_written);
                }
                auto& target = field(config);
                target = static_cast<std::remove_reference_t<decltype(target)>>(*number);
            },
            [field](const Config& config) { return fmt::format("{}", field(config)); }};
}

std::string print_number(double value) {
    std::string text = fmt::format("{}", value);
    if (text.find_first_of(".e") == std::string::npos) text += ".0";
    return text;
}

// `accepts` says which finite numbers are allowed, `wanted` says it in words.
template <class Accepts, class Field>
Setting number_setting(std::string key, const std::string& help, const std::string& wanted,
                       Accepts accepts, Field field) {
    return {std::move(key),
            fmt::format("{} ({})", help, wanted),
            false,
            false,
            [=](Config& config, const SettingValue& value) {
                const auto* integer = std::get_if<std::int64_t>(&value.value);
                const auto* real = std::get_if<double>(&value.value);
                const double number = integer != nullptr ? static_cast<double>(*integer)
                                      : real != nullptr  ? *real
                                                         : std::nan("");
                if (!std::isfinite(number) || !accepts(number)) refuse(wanted, value.as_written);
                field(config) = number;
            },
            [field](const Config& config) { return print_number(field(config)); }};
}

constexpr std::int64_t kMostWidth = 1 << 20;
constexpr std::int64_t kMostLevels = 1 << 16;
constexpr std::uint32_t kMostClasses = 1024;  // of a softmax: a warp holds one in its registers

template <class Field>
Setting widths_setting(std::string key, const std::string& help, Field field) {
    const std::string wanted = fmt::format("a list of integers from 1 to {}", kMostWidth);
    return {std::move(key),
            fmt::format("{} ({})", help, wanted),
            false,
            true,
            [=](Config& config, const SettingValue& value) {
                const auto* list = std::get_if<SettingValue::IntegerList>(&value.value);
                if (list == nullptr) refuse(wanted, value.as_written);
                std::vector<std::uint32_t> widths;
                for (const std::int64_t width : *list) {
                    if (width < 1 || width > kMostWidth) refuse(wanted, value.as_written);
                    widths.push_back(static_cast<std::uint32_t>(width));
                }
                field(config) = std::move(widths);
            },
            [field](const Config& config) {
                return fmt::format("[{}]", fmt::join(field(config), ", "));
            }};
}

void add_data_settings(std::vector<Setting>& all) {
    all.push_back(text_setting(
        "data.source",
        "fashion-mnist, mnist:DIR, an IDX or .npy file, a folder of images, or synthetic:NAME",
        [](auto& c) -> auto& { return c.data.source; }));
    all.push_back(integer_setting(
        "data.validation", "how many of the last training examples are held out for validation", 0,
        std::numeric_limits<std::uint32_t>::max(),
        [](auto& c) -> auto& { return c.data.validation; }));
    all.push_back(choice_setting(
        "data.binarize", "how grey pixels become black or white (not, anew each step, or once)",
        Names<Binarize>{
            {Binarize::none, "none"}, {Binarize::dynamic, "dynamic"}, {Binarize::fixed, "fixed"}},
        [](auto& c) -> auto& { return c.data.binarize; }));
}

void add_likelihood_settings(std::vector<Setting>& all) {
    constexpr const char* kWanted = "a number from 1e-6 to 1e6";
    const auto is_sigma = [](double v) { return v >= 1e-6 && v <= 1e6; };
    all.push_back(choice_setting(
        "model.variance", "of the Gaussian likelihood",
        Names<Variance>{{Variance::fixed, "fixed"},
                        {Variance::shared, "shared"},
                        {Variance::pixel, "pixel"},
                        {Variance::optimal, "optimal"}},
        [](auto& c) -> auto& { return c.model.variance; }));
    all.push_back(number_setting(
        "model.sigma", "standard deviation of the Gaussian likelihood with fixed variance", kWanted,
        is_sigma, [](auto& c) -> auto& { return c.model.sigma; }));
    all.push_back(number_setting(
        "model.sigma_min", "least learned standard deviation, or scale of the logistic likelihood",
        kWanted, is_sigma, [](auto& c) -> auto& { return c.model.sigma_min; }));
    all.push_back(number_setting(
        "model.sigma_max", "and the most", kWanted, is_sigma,
        [](auto& c) -> auto& { return c.model.sigma_max; }));
    all.push_back(integer_setting(
        "model.levels", "values that a discrete pixel can have, or width of a one-hot group", 2,
        kMostLevels, [](auto& c) -> auto& { return c.model.levels; }));
}

void add_model_settings(std::vector<Setting>& all) {
    const auto any = [](double) { return true; };
    all.push_back(widths_setting(
        "model.encoder_hidden", "widths of the encoder's hidden layers",
        [](auto& c) -> auto& { return c.model.encoder_hidden; }));
    all.push_back(integer_setting(
        "model.latent", "dimensions of the latent code z", 1, 1 << 16,
        [](auto& c) -> auto& { return c.model.latent; }));
    all.push_back(widths_setting(
        "model.decoder_hidden", "widths of the decoder's; if absent, the encoder's in reverse",
        [](auto& c) -> auto& { return c.model.decoder_hidden; }));
    all.push_back(choice_setting(
        "model.activation", "of the hidden layers",
        Names<Activation>{{Activation::relu, "relu"},
                          {Activation::tanh, "tanh"},
                          {Activation::softplus, "softplus"},
                          {Activation::gelu, "gelu"},
                          {Activation::silu, "silu"}},
        [](auto& c) -> auto& { return c.model.activation; }));
    all.push_back(choice_setting(
        "model.likelihood", "p(x|z)",
        Names<Likelihood>{{Likelihood::bernoulli, "bernoulli"},
                          {Likelihood::gaussian, "gaussian"},
                          {Likelihood::logistic, "logistic"},
                          {Likelihood::categorical, "categorical"},
                          {Likelihood::onehot, "onehot"},
                          {Likelihood::poisson, "poisson"}},
        [](auto& c) -> auto& { return c.model.likelihood; }));
    add_likelihood_settings(all);
    all.push_back(number_setting(
        "model.logvar_min", "the encoder's log-variance is clamped from below to this",
        "a finite number", any, [](auto& c) -> auto& { return c.model.logvar_min; }));
    all.push_back(number_setting(
        "model.logvar_max", "and from above to this", "a finite number", any,
        [](auto& c) -> auto& { return c.model.logvar_max; }));
    all.push_back(choice_setting(
        "model.initialization", "how weights and biases start",
        Names<Initialization>{{Initialization::pytorch, "pytorch"},
                              {Initialization::glorot, "glorot"},
                              {Initialization::he, "he"}},
        [](auto& c) -> auto& { return c.model.initialization; }));
}

void add_train_settings(std::vector<Setting>& all) {
    constexpr std::int64_t kMostSteps = std::numeric_limits<std::uint32_t>::max();
    const auto positive = [](double v) { return v > 0; };
    const auto decay = [](double v) { return v >= 0 && v < 1; };
    all.push_back(integer_setting(
        "train.seed", "of all randomness: the same seed, the same run", 0,
        std::numeric_limits<std::int64_t>::max(), [](auto& c) -> auto& { return c.train.seed; }));
    all.push_back(integer_setting(
        "train.epochs", "passes over the training examples", 1, 1'000'000,
        [](auto& c) -> auto& { return c.train.epochs; }));
    all.push_back(integer_setting(
        "train.steps", "optimiser steps in all; 0: as many as the epochs take", 0, kMostSteps,
        [](auto& c) -> auto& { return c.train.steps; }));
    all.push_back(integer_setting(
        "train.batch", "examples a step", 1, kMostWidth,
        [](auto& c) -> auto& { return c.train.batch; }));
    all.push_back(number_setting(
        "train.learning_rate", "Adam's step size", "a number above 0", positive,
        [](auto& c) -> auto& { return c.train.learning_rate; }));
    all.push_back(number_setting(
        "train.adam_beta1", "decay of Adam's mean of gradients", "a number from 0 to below 1",
        decay, [](auto& c) -> auto& { return c.train.adam_beta1; }));
    all.push_back(number_setting(
        "train.adam_beta2", "decay of Adam's mean of squared gradients",
        "a number from 0 to below 1", decay, [](auto& c) -> auto& { return c.train.adam_beta2; }));
    all.push_back(number_setting(
        "train.adam_epsilon", "keeps Adam's division finite", "a number of at least 1e-30",
        [](double v) { return v >= 1e-30; },  // smaller ones are zero in float
        [](auto& c) -> auto& { return c.train.adam_epsilon; }));
    all.push_back(number_setting(
        "train.beta", "weight of the KL term in the loss", "a number of at least 0",
        [](double v) { return v >= 0; }, [](auto& c) -> auto& { return c.train.beta; }));
}

}  // namespace

std::string quote(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
            out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
        } else {
            out += c;
        }
    }
    return out + '"';
}

const std::vector<Setting>& settings() {
    static const std::vector<Setting> all = [] {
        std::vector<Setting> list;
        add_data_settings(list);
        add_model_settings(list);
        add_train_settings(list);
        return list;
    }();
    return all;
}

const Setting* find_setting(std::string_view key) {
    const auto& all = settings();
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const Setting& s) { return s.key == key; });
    return found == all.end() ? nullptr : &*found;
}

namespace {

void check_likelihood(const Config& config) {
    const ModelConfig& model = config.model;
    const std::string likelihood = setting_text(config, "model.likelihood");
    if (model.sigma_min >= model.sigma_max) {
        throw InputError(fmt::format("model.sigma_min ({}) must be below model.sigma_max ({})",
                                     model.sigma_min, model.sigma_max));
    }
    if (model.variance != Variance::fixed && model.likelihood != Likelihood::gaussian) {
        throw InputError(
            fmt::format("model.variance = {} is for the Gaussian likelihood, and model.likelihood "
                        "is {}: leave one of them out",
                        setting_text(config, "model.variance"), likelihood));
    }
    if (is_softmax(model.likelihood) && model.levels > kMostClasses) {
        throw InputError(fmt::format("model.levels = {}: with model.likelihood = {} at most {}",
                                     model.levels, likelihood, kMostClasses));
    }
    const bool may_be_binary =
        model.likelihood == Likelihood::bernoulli || model.likelihood == Likelihood::gaussian;
    if (config.data.binarize != Binarize::none && !may_be_binary) {
        throw InputError(
            fmt::format("data.binarize makes black and white pixels, and model.likelihood = {} is "
                        "for other values: leave one of them out",
                        likelihood));
    }
}

}  // namespace

void check_config(const Config& config) {
    const ModelConfig& model = config.model;
    if (model.logvar_min >= model.logvar_max) {
        throw InputError(fmt::format("model.logvar_min ({}) must be below model.logvar_max ({})",
                                     model.logvar_min, model.logvar_max));
    }
    // exp(logvar) and its inverse must stay finite in float.
    constexpr double kMostLogvar = 80;
    if (model.logvar_min < -kMostLogvar || model.logvar_max > kMostLogvar) {
        throw InputError(
            fmt::format("model.logvar_min and model.logvar_max must lie in "
                        "[-{0}, {0}], not {1} and {2}",
                        kMostLogvar, model.logvar_min, model.logvar_max));
    }
    check_likelihood(config);
}

std::vector<std::string> differing_settings(const Config& a, const Config& b) {
    std::vector<std::string> keys;
    for (const Setting& setting : settings()) {
        if (setting.print(a) != setting.print(b)) keys.push_back(setting.key);
    }
    return keys;
}

std::string setting_text(const Config& config, std::string_view key) {
    const Setting* setting = find_setting(key);
    if (setting == nullptr) throw std::out_of_range(std::string(key));
    return setting->print(config);
}

}  // namespace vae
