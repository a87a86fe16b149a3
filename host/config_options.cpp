#include "host/config_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "host/backend_choice.h"
#include "host/decimal.h"
#include "host/settings.h"

namespace vae {

CLI::Validator one_of(const std::vector<std::string>& choices) {
    CLI::Validator validator = CLI::IsMember(choices);
    validator.description("");  // the option's help names them already
    return validator;
}

void add_backend_option(CLI::App& command, const std::string& option, std::string& name,
                        const std::string& help) {
    command.add_option(option, name, fmt::format("{}{}", help, fmt::join(backend_names(), ", ")))
        ->check(one_of(backend_names()))
        ->capture_default_str()
        ->type_name("NAME");
}

CLI::Validator whole_number(std::uint64_t least, std::uint64_t most) {
    const auto check = [least, most](const std::string& text) -> std::string {
        const auto number = parse_decimal<std::uint64_t>(text);
        if (number && *number >= least && *number <= most) return {};
        return fmt::format("must be an integer from {} to {}, not {}", least, most, text);
    };
    return CLI::Validator(check, "");
}

ConfigOptions::ConfigOptions(CLI::App& command) : command_(command) {
    command.add_option("--config", file_, "settings as TOML; the options below win over it")
        ->type_name("FILE");
    command
        .add_option("--set", assignments_, "any setting, e.g. train.adam_beta1=0.95; repeatable")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
    add("--data", "data.source", "SPEC",
        "fashion-mnist, mnist:DIR, a file, a folder or synthetic:NAME");
    add("--binarize", "data.binarize", "[KIND]", "none, dynamic or fixed; alone: dynamic",
        "dynamic");
    add("--data-placement", "data.placement", "WHERE",
        "where a GPU has the examples: auto, device or streamed");
    add("--latent", "model.latent", "N", "dimensions of the latent code");
    add("--hidden", "model.encoder_hidden", "N,N,...",
        "widths of the hidden layers, e.g. 400,200, or none; the decoder mirrors them");
    add("--activation", "model.activation", "NAME", "relu, tanh, softplus, gelu, silu or gated");
    add("--likelihood", "model.likelihood", "NAME",
        "bernoulli, gaussian, logistic, categorical, onehot or poisson");
    add("--prior", "model.prior", "NAME", "normal, mixture or vamp");
    add("--posterior", "model.posterior", "NAME", "covariance of q(z|x): diagonal or full");
    add("--seed", "train.seed", "N", "of all randomness");
    add("--batch", "train.batch", "N", "examples a step");
    add("--precision", "train.precision", "NAME",
        "of the GPU's products: auto, fp32, tf32 or bf16");
    add("--plan", "train.plan", "NAME",
        "of the GPU's hidden layers: auto, cublas, epilogue or fused");
    add("--beta", "train.beta", "X", "weight of the KL term");
    add("--learning-rate", "train.learning_rate", "X", "the optimiser's step size");
    add("--optimizer", "train.optimizer", "NAME", "adam, adamw, adagrad or sgd");
}

void ConfigOptions::add_length() {
    add("--epochs", "train.epochs", "N", "passes over the training examples");
    add("--steps", "train.steps", "N", "optimiser steps in all, instead of epochs");
    command_.get_option("--epochs")->excludes("--steps");
}

void ConfigOptions::add(const std::string& option, const std::string& key, const std::string& type,
                        const std::string& help, const std::string& if_bare) {
    shortcuts_.push_back(std::make_unique<Shortcut>(Shortcut{option, key, if_bare, "", nullptr}));
    Shortcut& shortcut = *shortcuts_.back();
    shortcut.handle = command_.add_option(option, shortcut.text, help)->type_name(type);
    if (!if_bare.empty()) shortcut.handle->expected(0, 1);
}

void ConfigOptions::apply(ConfigBuilder& builder) const {
    if (!file_.empty()) builder.read_file(file_);
    for (const std::string& assignment : assignments_) builder.set_assignment(assignment, "--set");
    for (const auto& shortcut : shortcuts_) {
        if (shortcut->handle->count() == 0) continue;
        const std::string text = shortcut->text.empty() ? shortcut->if_bare : shortcut->text;
        builder.set(shortcut->key, text, shortcut->option);
        if (shortcut->key == "model.encoder_hidden") builder.forget("model.decoder_hidden");
        if (shortcut->key == "train.epochs") builder.set("train.steps", "0", shortcut->option);
    }
}

bool ConfigOptions::names(const std::string& key) const {
    const auto is_of = [&key](const std::string& assignment) {
        return assignment.starts_with(key + '=');
    };
    const auto is_given = [&key](const auto& shortcut) {
        return shortcut->key == key && shortcut->handle->count() > 0;
    };
    return std::any_of(assignments_.begin(), assignments_.end(), is_of) ||
           std::any_of(shortcuts_.begin(), shortcuts_.end(), is_given);
}

std::string settings_help() {
    std::string text = "Settings, for --config and --set, with their defaults:\n";
    for (const Setting& setting : settings()) {
        text += fmt::format("  {} = {}\n      {}\n", setting.key, setting.print(Config()),
                            setting.help);
    }
    return text;
}

}  // namespace vae
