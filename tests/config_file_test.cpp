#include "host/config_file.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <string>
#include <vector>

#include "host/error.h"
#include "host/settings.h"
#include "tests/error_message.h"

namespace vae {
namespace {

using testing::contains;
using testing::message_of;

// A configuration in which no setting has its default.
Config unusual_config() {
    Config config;
    config.data = {"a \"quoted\\\" path\nwith a line", 7, Binarize::fixed, DataPlacement::streamed};
    config.model.encoder_hidden = {30, 20};
    config.model.latent = 3;
    config.model.decoder_hidden = {};
    config.model.activation = Activation::silu;
    config.model.likelihood = Likelihood::gaussian;
    config.model.variance = Variance::shared;
    config.model.sigma = 0.1;
    config.model.sigma_min = 0.05;
    config.model.sigma_max = 3;
    config.model.levels = 16;
    config.model.prior_components = 7;
    config.model.posterior = PosteriorCovariance::full;
    config.model.logvar_min = -7.25;
    config.model.logvar_max = 1;
    config.model.initialization = Initialization::he;
    config.model.data_bias = true;
    config.objective = {
        Bound::elbo, KlTerm::analytic,  3, EncoderGradient::score, Baseline::leave_one_out,
        0.25,        FreeBitsPer::total};
    config.train.seed = std::numeric_limits<std::int64_t>::max();
    config.train.epochs = 3;
    config.train.steps = 17;
    config.train.batch = 5;
    config.train.precision = Precision::fp32;
    config.train.plan = FusionPlan::cublas;
    config.train.graph_steps = 7;
    config.train.learning_rate = 1.0 / 3;
    config.train.schedule = LearningRateSchedule::cosine;
    config.train.schedule_factor = 0.5;
    config.train.schedule_epochs = 7;
    config.train.learning_rate_final = 0.125;
    config.train.warmup_steps = 9;
    config.train.optimizer = Optimizer::adagrad;
    config.train.weight_decay = 1e-4;
    config.train.momentum = 0.5;
    config.train.adam_beta1 = 0;
    config.train.adam_beta2 = 0.75;
    config.train.adam_epsilon = 1e-30;
    config.train.adagrad_epsilon = 1e-7;
    config.train.normalize_gradients = true;
    config.train.clip_norm = 5;
    config.train.ema = 0.999;
    config.train.beta = 4;
    config.train.beta_schedule = BetaSchedule::cyclic;
    config.train.beta_epochs = 6;
    config.train.beta_ramp = 0.75;
    config.train.patience = 8;
    return config;
}

std::string error_of(const std::string& toml) {
    return message_of<InputError>([&] { from_toml(toml, "config.toml"); });
}

std::string error_of_set(const std::string& assignment) {
    return message_of<InputError>([&] {
        ConfigBuilder builder;
        builder.set_assignment(assignment, "--set");
        builder.finish();
    });
}

// What looks at whole batches is refused together with parts of one.
TEST(ConfigFile, MicroBatchesAreForWhatHasNoWholeBatch) {
    const auto error = [](const std::string& rest) {
        return error_of("[train]\nmicro_batches = 4\n" + rest);
    };
    EXPECT_EQ(error(""), "");
    EXPECT_EQ(error("batch = 4"), "");
    EXPECT_TRUE(contains(error("batch = 3"), "no more parts than examples"));
    EXPECT_TRUE(contains(error("[objective]\nfree_bits = 0.5"),
                         "objective.free_bits = 0.5 looks at a whole batch"));
    EXPECT_TRUE(contains(error("[objective]\ngradient = \"score\"\nbaseline = \"running-mean\""),
                         "looks at a whole batch"));
    EXPECT_TRUE(contains(error("[model]\nlikelihood = \"gaussian\"\nvariance = \"optimal\""),
                         "model.variance = \"optimal\" looks at a whole batch"));
}

TEST(ConfigFile, PlansAreForTheirActivations) {
    const auto error = [](const std::string& plan, const std::string& activation) {
        return error_of("[train]\nplan = \"" + plan + "\"\n[model]\nactivation = \"" + activation +
                        "\"");
    };
    EXPECT_EQ(error("epilogue", "relu"), "");
    EXPECT_EQ(error("auto", "tanh"), "");
    EXPECT_EQ(error("cublas", "gated"), "");
    EXPECT_TRUE(contains(error("epilogue", "tanh"), "model.activation is \"tanh\": use \"auto\""));
    for (const char* const activation : {"relu", "tanh", "softplus", "gelu", "silu", "gated"}) {
        EXPECT_EQ(error("fused", activation), "") << activation;
    }
    EXPECT_TRUE(contains(error("fast", "relu"), "one of auto, cublas, epilogue, fused"));
}

TEST(ConfigFile, EverySettingIsReadBackAsWritten) {
    const Config config = unusual_config();
    // All but the bound, the KL term, the prior and micro-batches: the score function and free bits
    // are for the default ones.
    EXPECT_EQ(differing_settings(config, Config()).size(), settings().size() - 4);
    const Config back = from_toml(to_toml(config), "config.toml");
    EXPECT_EQ(differing_settings(config, back), std::vector<std::string>());
    EXPECT_EQ(back.data.source, config.data.source);
    EXPECT_EQ(back.train.learning_rate, config.train.learning_rate);
    EXPECT_EQ(back.model.encoder_hidden, config.model.encoder_hidden);
}

TEST(ConfigFile, ObjectivesThatContradictThemselvesAreRefused) {
    const auto error = [](const std::string& settings) {
        return error_of("[objective]\n" + settings);
    };
    EXPECT_TRUE(contains(error("gradient = \"dreg\""), "set objective.bound = \"iwae\""));
    EXPECT_TRUE(contains(error("gradient = \"score\"\nbound = \"iwae\""), "is for the ELBO"));
    EXPECT_TRUE(contains(error("baseline = \"running-mean\""), "is for the score function"));
    EXPECT_TRUE(contains(error("gradient = \"score\"\nbaseline = \"leave-one-out\""),
                         "needs objective.samples of at least 2"));
    for (const char* sampled : {"kl = \"sampled\"", "bound = \"iwae\""}) {
        EXPECT_TRUE(contains(error(std::string("free_bits = 0.5\n") + sampled),
                             "objective.free_bits = 0.5 needs the ELBO's KL term in closed form"));
        EXPECT_EQ(error(std::string("free_bits = 0\n") + sampled), "");
    }
    EXPECT_TRUE(contains(error("free_bits = -1"), "objective.free_bits must be a number of at"));
    EXPECT_TRUE(contains(error("free_bits_per = \"unit\""), "one of dimension, total"));
    EXPECT_TRUE(contains(error("samples = 0"), "objective.samples must be an integer from 1"));
    const auto iwae = from_toml("[objective]\nbound = \"iwae\"\ngradient = \"dreg\"", "c");
    EXPECT_EQ(iwae.objective.bound, Bound::iwae);
    EXPECT_EQ(iwae.objective.gradient, EncoderGradient::dreg);
}

TEST(ConfigFile, LikelihoodsThatContradictOtherSettingsAreRefused) {
    const auto error = [](const std::string& settings) { return error_of("[model]\n" + settings); };
    for (const std::string variance : {"shared", "pixel", "optimal"}) {
        const std::string setting = "variance = \"" + variance + "\"";
        EXPECT_TRUE(contains(error(setting), "model." + setting + " is for the Gaussian"));
        EXPECT_EQ(error("likelihood = \"gaussian\"\n" + setting), "");
    }
    EXPECT_TRUE(contains(error("sigma_min = 2\nsigma_max = 2"),
                         "model.sigma_min (2) must be below model.sigma_max (2)"));
    for (const std::string likelihood : {"categorical", "onehot"}) {
        const std::string setting = "likelihood = \"" + likelihood + "\"\nlevels = ";
        EXPECT_TRUE(contains(error(setting + "1025"), "model.levels = 1025: with"));
        EXPECT_TRUE(contains(error(setting + "1025"), "at most 1024"));
        EXPECT_EQ(error(setting + "1024"), "");
    }
    EXPECT_EQ(error("likelihood = \"logistic\"\nlevels = 65536"), "");
    for (const std::string likelihood : {"logistic", "categorical", "onehot", "poisson"}) {
        const std::string setting = "likelihood = \"" + likelihood + "\"\n[data]\nbinarize = ";
        EXPECT_TRUE(contains(error(setting + "\"dynamic\""), "data.binarize makes black and"));
        EXPECT_TRUE(contains(error(setting + "\"fixed\""), "\"" + likelihood + "\""));
    }
}

TEST(ConfigFile, TheOptimalVarianceIsForThePathwiseElbo) {
    const std::string optimal =
        "[model]\nlikelihood = \"gaussian\"\nvariance = \"optimal\"\n[objective]\n";
    for (const std::string objective :
         {"bound = \"iwae\"", "bound = \"iwae\"\ngradient = \"dreg\"", "gradient = \"score\""}) {
        EXPECT_TRUE(contains(error_of(optimal + objective),
                             "model.variance = \"optimal\" is the best for the pathwise ELBO; with "
                             "another objective use \"shared\""))
            << objective;
    }
    EXPECT_EQ(error_of(optimal + "kl = \"sampled\"\nsamples = 3"), "");
}

TEST(ConfigFile, PriorsThatContradictOtherSettingsAreRefused) {
    const std::string vamp = "[model]\nprior = \"vamp\"\n";
    EXPECT_EQ(error_of(vamp), "");
    EXPECT_TRUE(contains(error_of(vamp + "posterior = \"full\""), "use \"mixture\" or"));
    EXPECT_TRUE(contains(error_of(vamp + "likelihood = \"poisson\""), "use \"mixture\" or"));
    EXPECT_TRUE(
        contains(error_of(vamp + "[objective]\nfree_bits = 1"), "model.prior = \"normal\""));
    EXPECT_EQ(error_of("[model]\nprior = \"mixture\"\nposterior = \"full\""), "");
}

TEST(ConfigFile, AFullCovarianceHasItsLimits) {
    const std::string full = "[model]\nposterior = \"full\"\n";
    EXPECT_EQ(error_of(full), "");
    EXPECT_EQ(error_of(full + "latent = 1024"), "");
    EXPECT_TRUE(contains(error_of(full + "latent = 1025"), "model.latent = 1025: with"));
    EXPECT_TRUE(contains(error_of(full + "[objective]\nfree_bits = 1"), "set it to \"total\""));
    EXPECT_EQ(error_of(full + "[objective]\nfree_bits = 1\nfree_bits_per = \"total\""), "");
    EXPECT_TRUE(contains(error_of("[model]\nposterior = \"banded\""), "one of diagonal, full"));
}

TEST(ConfigFile, NothingGivenIsTheDefault) {
    EXPECT_TRUE(differing_settings(from_toml("", "config.toml"), Config()).empty());
    EXPECT_TRUE(differing_settings(from_toml("[model]\n", "config.toml"), Config()).empty());
}

TEST(ConfigFile, DecoderMirrorsTheEncoderUnlessGiven) {
    const auto mirrored = from_toml("model.encoder_hidden = [3, 2]", "config.toml").model;
    EXPECT_EQ(mirrored.decoder_hidden, (std::vector<std::uint32_t>{2, 3}));
    const auto given =
        from_toml("[model]\nencoder_hidden = []\ndecoder_hidden = [5]", "config.toml").model;
    EXPECT_TRUE(given.encoder_hidden.empty());
    EXPECT_EQ(given.decoder_hidden, (std::vector<std::uint32_t>{5}));
}

TEST(ConfigFile, OverridesNeedNoQuotesAndNoBrackets) {
    ConfigBuilder builder;
    builder.set_assignment("model.activation=tanh", "--set");
    builder.set_assignment("model.encoder_hidden=40,30", "--set");
    builder.set_assignment("model.decoder_hidden=none", "--set");
    builder.set_assignment("data.source=a=b #c", "--set");
    builder.set_assignment("train.beta=2", "--set");
    const Config config = builder.finish();
    EXPECT_EQ(config.model.activation, Activation::tanh);
    EXPECT_EQ(config.model.encoder_hidden, (std::vector<std::uint32_t>{40, 30}));
    EXPECT_TRUE(config.model.decoder_hidden.empty());
    EXPECT_EQ(config.data.source, "a=b #c");
    EXPECT_EQ(config.train.beta, 2.0);
}

TEST(ConfigFile, FlagsAreTrueOrFalse) {
    for (const bool flag : {true, false}) {
        const std::string text = flag ? "true" : "false";
        Config config;
        config.model.data_bias = !flag;
        ConfigBuilder builder(config);
        builder.set_assignment("model.data_bias=" + text, "--set");
        EXPECT_EQ(builder.finish().model.data_bias, flag);
        EXPECT_EQ(from_toml("model.data_bias = " + text, "config.toml").model.data_bias, flag);
    }
    EXPECT_EQ(error_of("[model]\ndata_bias = 1"),
              "config.toml:2: model.data_bias must be true or false, not 1");
}

TEST(ConfigFile, NumbersAndListsOfTheCommandLineAreDecimal) {
    const auto with = [](const std::string& assignment) {
        ConfigBuilder builder;
        builder.set_assignment(assignment, "--set");
        return builder.finish();
    };
    EXPECT_EQ(with("train.beta=.5").train.beta, 0.5);
    EXPECT_EQ(with("train.beta=1.").train.beta, 1.0);
    EXPECT_EQ(with("train.learning_rate=1e-4").train.learning_rate, 1e-4);
    EXPECT_EQ(with("train.seed=0").train.seed, 0U);
    const std::vector<std::uint32_t> two = {8, 4};
    for (const char* list : {"8,4", "[8,4]", "[ 8, 4 ]", "8, 4"}) {
        EXPECT_EQ(with(std::string("model.encoder_hidden=") + list).model.encoder_hidden, two);
    }
    for (const char* list : {"none", "[]", "[ ]"}) {
        const ModelConfig model = with(std::string("model.encoder_hidden=") + list).model;
        EXPECT_TRUE(model.encoder_hidden.empty() && model.decoder_hidden.empty()) << list;
    }
}

TEST(ConfigFile, AForgottenDecoderMirrorsTheEncoderAgain) {
    ConfigBuilder builder(unusual_config());
    builder.set("model.encoder_hidden", "8,4", "--hidden");
    EXPECT_EQ(builder.finish().model.decoder_hidden, unusual_config().model.decoder_hidden);
    builder.forget("model.decoder_hidden");
    EXPECT_EQ(builder.finish().model.decoder_hidden, (std::vector<std::uint32_t>{4, 8}));
}

TEST(ConfigFile, AQuotedKeyWithADotIsNoSetting) {
    EXPECT_TRUE(contains(error_of("\n\"model.latent\" = 3"),
                         "config.toml:2: unknown setting \"model.latent\"; "));
    EXPECT_EQ(from_toml("model.latent = 3", "config.toml").model.latent, 3U);
    EXPECT_EQ(from_toml("\"model\".latent = 3", "config.toml").model.latent, 3U);
}

TEST(ConfigFile, ErrorsNameTheLineAndTheRemedy) {
    EXPECT_EQ(error_of("[model]\n\nlatnet = 5"),
              "config.toml:3: unknown setting model.latnet; did you mean model.latent?");
    EXPECT_TRUE(contains(error_of("[trian]\nbatch = 5"), "did you mean train.batch?"));
    EXPECT_TRUE(contains(error_of("latent = 5"), "did you mean model.latent?"));
    EXPECT_TRUE(contains(error_of("[something]\n"), "config.toml:1: unknown setting something"));
    EXPECT_TRUE(contains(error_of("[model]\nlatent = = 5"), "config.toml:2: "));
    EXPECT_EQ(error_of("[model]\nactivation = \"rely\""),
              "config.toml:2: model.activation must be one of relu, tanh, softplus, gelu, silu, "
              "gated, not \"rely\"");
    EXPECT_EQ(error_of("[train]\nbatch = 0"),
              "config.toml:2: train.batch must be an integer from 1 to 1048576, not 0");
    EXPECT_TRUE(contains(error_of("model = 5"), "config.toml:1: unknown setting model"));
}

TEST(ConfigFile, ValuesOutOfRangeOrOfAnotherTypeAreRefused) {
    for (const char* assignment : {"model.latent=0",
                                   "model.latent=-1",
                                   "model.latent=2.5",
                                   "model.latent=many",
                                   "model.latent=",
                                   "model.latent=true",
                                   "model.latent=99999999999999999999",
                                   "model.latent=010",
                                   "model.latent=0x10",
                                   "model.latent=1_0",
                                   "model.latent= 5",
                                   "model.encoder_hidden=",
                                   "model.encoder_hidden=[8",
                                   "model.encoder_hidden=[[8]]",
                                   "model.encoder_hidden=8,",
                                   "model.encoder_hidden=010",
                                   "train.beta=1e999",
                                   "train.beta=0x1",
                                   "data.source=\"a",
                                   "model.encoder_hidden=0",
                                   "model.encoder_hidden=4,x",
                                   "model.encoder_hidden=4,,5",
                                   "model.sigma=0",
                                   "model.sigma=-1",
                                   "model.sigma=nan",
                                   "model.sigma=inf",
                                   "model.sigma_min=0",
                                   "model.sigma_max=1e7",
                                   "model.variance=learned",
                                   "model.likelihood=laplace",
                                   "model.levels=1",
                                   "model.levels=65537",
                                   "model.levels=2.5",
                                   "model.logvar_min=10",
                                   "model.logvar_max=-10",
                                   "model.logvar_max=1000",
                                   "model.data_bias=1",
                                   "model.data_bias=yes",
                                   "model.data_bias=\"true\"",
                                   "model.data_bias=",
                                   "train.batch=0",
                                   "train.epochs=0",
                                   "train.seed=-1",
                                   "train.learning_rate=0",
                                   "train.adam_beta1=1",
                                   "train.adam_beta2=-0.1",
                                   "train.adam_epsilon=0",
                                   "train.adagrad_epsilon=0",
                                   "train.optimizer=adamax",
                                   "train.weight_decay=-1",
                                   "train.momentum=1",
                                   "train.clip_norm=-1",
                                   "train.clip_norm=true",
                                   "train.normalize_gradients=1",
                                   "train.normalize_gradients=yes",
                                   "train.normalize_gradients=True",
                                   "train.normalize_gradients=\"true\"",
                                   "train.normalize_gradients=",
                                   "train.ema=1",
                                   "train.ema=-0.1",
                                   "train.beta=-1",
                                   "train.schedule=linear",
                                   "train.patience=-1",
                                   "train.schedule_factor=0",
                                   "train.schedule_factor=1.5",
                                   "train.schedule_epochs=0",
                                   "train.learning_rate_final=-1",
                                   "train.warmup_steps=-1",
                                   "train.beta_schedule=step",
                                   "train.beta_epochs=0",
                                   "train.beta_ramp=0",
                                   "train.beta_ramp=1.1",
                                   "train.steps=4294967296",
                                   "data.validation=-1",
                                   "data.binarize=maybe",
                                   "data.source=",
                                   "data.binarize=none\nmodel.latent=3",
                                   "model.latent=3\ntrain.batch=5",
                                   "model.nothing=1",
                                   "model=1",
                                   "latent",
                                   "=5"}) {
        const std::string message = error_of_set(assignment);
        EXPECT_TRUE(contains(message, "--set ") || contains(message, "model.logvar"))
            << assignment << ": " << message;
    }
}

TEST(ConfigFile, ATruthValueIsTrueOrFalse) {
    for (const bool value : {true, false}) {
        const std::string text = value ? "true" : "false";
        Config config;
        config.train.normalize_gradients = !value;
        EXPECT_EQ(setting_text(config, "train.normalize_gradients"), value ? "false" : "true");
        ConfigBuilder builder(config);
        builder.set_assignment("train.normalize_gradients=" + text, "--set");
        EXPECT_EQ(builder.finish().train.normalize_gradients, value);
        builder = ConfigBuilder(config);
        builder.read_text("train.normalize_gradients = " + text, "config.toml");
        EXPECT_EQ(builder.finish().train.normalize_gradients, value);
    }
    EXPECT_TRUE(contains(error_of("train.normalize_gradients = \"true\""),
                         "must be true or false, not \"true\""));
    EXPECT_TRUE(contains(error_of("model.latent = true"), "not true"));
}

TEST(ConfigFile, EverySettingHasHelpAndOneKey) {
    std::set<std::string> keys;
    for (const Setting& setting : settings()) {
        EXPECT_FALSE(setting.help.empty()) << setting.key;
        EXPECT_TRUE(keys.insert(setting.key).second) << setting.key;
    }
}

}  // namespace
}  // namespace vae
