#include "host/compare.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "host/data_source.h"
#include "host/safetensors.h"
#include "host/train.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

TracedTensor tensor(const std::string& name, std::vector<double> values) {
    const std::size_t size = values.size();
    return {name, {size}, std::move(values)};
}

Config small_config() {
    Config config;
    config.data.source = "synthetic:bars";
    config.model.encoder_hidden = {16};
    config.model.decoder_hidden = {16};
    config.model.latent = 3;
    config.train.batch = 50;
    return config;
}

TEST(Compare, RelativeAndLargestError) {
    const auto one = compare_tensor(tensor("t", {3, 4.5}), tensor("t", {3, 4}), 0.11);
    EXPECT_DOUBLE_EQ(one.relative_l2, 0.1);
    EXPECT_DOUBLE_EQ(one.largest_error, 0.5);
    EXPECT_EQ(one.elements, 2U);
    EXPECT_TRUE(one.is_ok);
    EXPECT_FALSE(compare_tensor(tensor("t", {3, 4.5}), tensor("t", {3, 4}), 0.09).is_ok);
}

TEST(Compare, AReferenceOfZerosIsComparedAbsolutely) {
    EXPECT_TRUE(compare_tensor(tensor("t", {0, 0}), tensor("t", {0, 0}), 1e-5).is_ok);
    const auto off = compare_tensor(tensor("t", {3e-4, 4e-4}), tensor("t", {0, 0}), 1e-5);
    EXPECT_NEAR(off.relative_l2, 5e-4, 1e-12);
    EXPECT_FALSE(off.is_ok);
}

TEST(Compare, NotANumberFailsOnEitherSide) {
    const double nan = std::nan("");
    const double infinity = std::numeric_limits<double>::infinity();
    for (const double bad : {nan, infinity, -infinity}) {
        EXPECT_FALSE(compare_tensor(tensor("t", {1, bad}), tensor("t", {1, 2}), 1e9).is_ok);
        EXPECT_FALSE(compare_tensor(tensor("t", {1, 2}), tensor("t", {1, bad}), 1e9).is_ok);
        EXPECT_FALSE(compare_tensor(tensor("t", {bad}), tensor("t", {bad}), 1e9).is_ok);
    }
}

TEST(Compare, NothingAndOtherShapesFail) {
    EXPECT_FALSE(all_ok({}));
    EXPECT_FALSE(compare_tensor(tensor("t", {}), tensor("t", {}), 1).is_ok);
    EXPECT_FALSE(compare_tensor(tensor("t", {1}), tensor("t", {1, 1}), 1).is_ok);
    const TracedTensor column{"t", {2, 1}, {1, 1}};
    EXPECT_FALSE(compare_tensor(column, tensor("t", {1, 1}), 1).is_ok);
}

TEST(Compare, TensorsOfOneSideOnlyFail) {
    const Trace both = {tensor("a", {1}), tensor("b", {2})};
    const Trace one = {tensor("b", {2})};
    EXPECT_TRUE(all_ok(compare_traces(both, both)));
    EXPECT_FALSE(all_ok(compare_traces(both, one)));
    EXPECT_FALSE(all_ok(compare_traces(one, both)));
    EXPECT_EQ(compare_traces(one, both).size(), 2U);
    EXPECT_FALSE(is_too_sensitive(compare_traces(one, both)));
    EXPECT_FALSE(is_too_sensitive(compare_after(one, both, both)));
}

TEST(Compare, AnEstimatedKlHasTheGateOfAllElse) {
    const auto is_ok = [](double error, KlTerm kl) {
        return all_ok(compare_traces({{"kl", {1}, {1 + error}}}, {{"kl", {1}, {1}}}, kl));
    };
    EXPECT_TRUE(is_ok(0.9e-6, KlTerm::analytic));
    EXPECT_FALSE(is_ok(1.1e-6, KlTerm::analytic));
    EXPECT_TRUE(is_ok(0.9e-5, KlTerm::sampled));
    EXPECT_FALSE(is_ok(1.1e-5, KlTerm::sampled));
}

TEST(Compare, FloatAgreesWithDoubleAndAnotherSeedDoesNot) {
    const Config config = small_config();
    const Splits splits = load_splits(config.data, config.model);
    const Checkpoint start = initial_checkpoint(config, splits);
    const auto record = [&](auto make, const Checkpoint& from) {
        const auto backend = make(from.config, from.layout());
        backend->set_data(splits);
        return record_steps(*backend, from, 5);
    };
    const BackendRecord floats = record(make_cpu_backend, start);
    const BackendRecord doubles = record(make_cpu_double_backend, start);
    EXPECT_TRUE(all_ok(compare_traces(floats.first_step, doubles.first_step)));
    EXPECT_TRUE(all_ok(compare_traces(floats.after, doubles.after)));

    Config other = config;
    other.train.seed = 2;
    const BackendRecord others = record(make_cpu_backend, initial_checkpoint(other, splits));
    for (const auto& row : compare_traces(others.first_step, doubles.first_step)) {
        EXPECT_FALSE(row.is_ok) << row.name;
    }
}

TEST(Compare, GatesAfterTrainingFollowTheReferencesOwnSensitivity) {
    const Trace reference = {tensor("after.a", {100, 0}), tensor("after.b", {100, 0})};
    const Trace nudged = {tensor("after.a", {100, 0.01}), tensor("after.b", {100, 0})};
    const Trace values = {tensor("after.a", {100, 0.05}), tensor("after.b", {100, 0.05})};
    const auto rows = compare_after(values, reference, nudged);
    EXPECT_NEAR(rows.at(0).gate, 1e-3, 1e-9);
    EXPECT_TRUE(rows.at(0).is_ok);
    EXPECT_EQ(rows.at(1).gate, 1e-5);
    EXPECT_FALSE(rows.at(1).is_ok);
    const double nan = std::nan("");
    const Trace lost = {tensor("after.a", {nan, 0}), tensor("after.b", {nan, 0})};
    EXPECT_FALSE(compare_after(values, reference, lost).at(0).is_ok);
}

TEST(Compare, NoGateIsAboveTheMost) {
    const Trace reference = {tensor("after.a", {100, 0}), tensor("after.b", {100, 0})};
    const Trace nudged = {tensor("after.a", {100, 0.5}), tensor("after.b", {100, 0.05})};
    const auto compared = [&](double a, double b) {
        return compare_after({tensor("after.a", {100, a}), tensor("after.b", {100, b})}, reference,
                             nudged);
    };
    const auto near = compared(0.9, 0.4);
    EXPECT_EQ(near.at(0).gate, most_gate(Precision::fp32));  // not 0.05
    EXPECT_NEAR(near.at(1).gate, 5e-3, 1e-9);
    EXPECT_TRUE(all_ok(near));
    EXPECT_FALSE(is_too_sensitive(near));
    const auto far = compared(1.1, 0.4);
    EXPECT_FALSE(far.at(0).is_ok);
    EXPECT_TRUE(far.at(1).is_ok);
    EXPECT_TRUE(is_too_sensitive(far));
    // What rounding does not explain.
    for (const auto& wrong : {compared(0.9, 0.6), compared(5.1, 0.4), compared(std::nan(""), 0)}) {
        EXPECT_FALSE(all_ok(wrong));
        EXPECT_FALSE(is_too_sensitive(wrong));
    }
}

TEST(Compare, StepsAreToldOfAsTheyAreDone) {
    const Config config = small_config();
    const Splits splits = load_splits(config.data, config.model);
    const Checkpoint start = initial_checkpoint(config, splits);
    const auto backend = make_cpu_backend(config, start.layout());
    backend->set_data(splits);
    for (const bool is_nudged : {false, true}) {
        std::vector<std::uint64_t> told;
        const StepsDone on_steps = [&](std::uint64_t done) { told.push_back(done); };
        if (is_nudged) {
            nudged_after(*backend, start, 9, on_steps);
        } else {
            record_steps(*backend, start, 9, on_steps);
        }
        ASSERT_FALSE(told.empty());
        EXPECT_EQ(std::adjacent_find(told.begin(), told.end(), std::greater_equal<>()), told.end());
        EXPECT_EQ(told.back(), 9U);
    }
}

// Epochs of one step, which is less than a chunk.
TEST(Compare, ShortEpochsComeToTheirEnd) {
    Config config = small_config();
    config.train.batch = 8192;
    const Splits splits = load_splits(config.data, config.model);
    Checkpoint start = initial_checkpoint(config, splits);
    start.train_examples = 3;
    const auto backend = make_cpu_backend(config, start.layout());
    backend->set_data(splits);
    std::uint64_t told = 0;
    record_steps(*backend, start, 200, [&](std::uint64_t done) { told = done; });
    EXPECT_EQ(told, 200U);
}

TEST(Compare, AWrongLearningRateIsOutsideTheGatesAfterTraining) {
    const Config config = small_config();
    const Splits splits = load_splits(config.data, config.model);
    const Checkpoint start = initial_checkpoint(config, splits);
    Checkpoint wrong = start;
    wrong.config.train.learning_rate *= 1.01;
    const auto doubles = make_cpu_double_backend(config, start.layout());
    const auto floats = make_cpu_backend(config, start.layout());
    doubles->set_data(splits);
    floats->set_data(splits);
    const Trace reference = record_steps(*doubles, start, 20).after;
    const Trace nudged = nudged_after(*doubles, start, 20);
    EXPECT_TRUE(all_ok(compare_after(record_steps(*floats, start, 20).after, reference, nudged)));
    for (const auto& row :
         compare_after(record_steps(*floats, wrong, 20).after, reference, nudged)) {
        EXPECT_FALSE(row.is_ok) << row.name;
    }
}

// Steps that cross from one epoch to the next: 6000 examples in batches of 2500 are 3 steps.
TEST(Compare, StepsAreThoseOfARun) {
    Config config = small_config();
    config.train.batch = 2500;
    config.train.steps = 4;
    config.train.schedule = LearningRateSchedule::cosine;
    config.train.warmup_steps = 2;
    config.train.beta_schedule = BetaSchedule::linear;
    config.train.beta_epochs = 2;
    const testing::TemporaryFolder folder;
    const Splits splits = load_splits(config.data, config.model);
    Checkpoint start = initial_checkpoint(config, splits);
    const auto backend = make_cpu_backend(config, start.layout());
    backend->set_data(splits);
    const BackendRecord record = record_steps(*backend, start, 4);
    Progress silent(nullptr, false);
    const RunFolder run{folder.path()};
    const std::vector<Tensor> tensors = start.layout().tensors();
    Trainer(config, splits, *backend, run, silent).run(std::move(start), [] { return false; });
    const std::vector<double> trained = backend->exact_parameters();
    ASSERT_EQ(record.after.size(), tensors.size());
    for (std::size_t i = 0; i < record.after.size(); ++i) {
        const Tensor& wanted = tensors[i];
        EXPECT_EQ(record.after[i].name, "after." + wanted.name);
        EXPECT_TRUE(std::equal(record.after[i].values.begin(), record.after[i].values.end(),
                               trained.begin() + static_cast<std::ptrdiff_t>(wanted.offset)))
            << wanted.name;
    }
}

TEST(Compare, TheDumpNamesTheScheduleOfItsStep) {
    Config config = small_config();
    config.train.warmup_steps = 4;
    config.train.beta_schedule = BetaSchedule::linear;
    const Splits splits = load_splits(config.data, config.model);
    const Checkpoint start = initial_checkpoint(config, splits);
    const testing::TemporaryFolder folder;
    const auto backend = make_cpu_backend(config, start.layout());
    backend->set_data(splits);
    write_dump(folder / "dump", record_steps(*backend, start, 1), config, 1, *backend);
    const SafetensorsFile file(folder / "dump");
    EXPECT_EQ(file.metadata().at("learning_rate"), "0.00025");
    EXPECT_EQ(file.metadata().at("beta"), "0");
}

TEST(Compare, TheDumpHoldsEveryTensorInTheBackendsPrecision) {
    const Config config = small_config();
    const Splits splits = load_splits(config.data, config.model);
    const Checkpoint start = initial_checkpoint(config, splits);
    const testing::TemporaryFolder folder;
    for (const auto make : {make_cpu_backend, make_cpu_double_backend}) {
        const auto backend = make(config, start.layout());
        backend->set_data(splits);
        const BackendRecord record = record_steps(*backend, start, 1);
        write_dump(folder / "dump", record, config, 1, *backend);
        const SafetensorsFile file(folder / "dump");
        for (const char* name :
             {"x", "epsilon", "mu", "logvar", "z", "logits", "recon", "kl", "loss",
              "encoder.0.weight", "grad.decoder.out.bias", "after.encoder.logvar.weight"}) {
            const LoadedTensor loaded = file.tensor(name);
            EXPECT_EQ(std::holds_alternative<std::vector<double>>(loaded.values),
                      backend->is_double())
                << name;
        }
        EXPECT_EQ(file.tensor("x").shape, (std::vector<std::size_t>{50, 64}));
        EXPECT_EQ(file.metadata().at("steps"), "1");
        EXPECT_EQ(file.metadata().at("backend"), backend->name());
    }
}

TEST(Compare, EachPrecisionHasItsGates) {
    EXPECT_EQ(gate_of("loss"), 1e-6);
    EXPECT_EQ(gate_of("kl"), 1e-6);
    EXPECT_EQ(gate_of("grad.encoder.0.weight"), 1e-5);
    EXPECT_EQ(gate_of("loss", Precision::tf32), 1e-5);
    EXPECT_EQ(gate_of("mu", Precision::tf32), 2e-2);
    EXPECT_EQ(gate_of("loss", Precision::bf16), 1e-4);
    EXPECT_EQ(gate_of("recon", Precision::tf32), 1e-4);
    EXPECT_EQ(gate_of("recon", Precision::bf16), 1e-3);
    EXPECT_EQ(gate_of("mu", Precision::bf16), 1e-1);
    for (const Precision precision : {Precision::fp32, Precision::tf32, Precision::bf16}) {
        EXPECT_EQ(gate_of("x", precision), 1e-5) << "no product makes it";
        EXPECT_GT(most_gate(precision), gate_of("mu", precision));
        const Trace reference = {{"mu", {1}, {1}}};
        const double gate = gate_of("mu", precision);
        EXPECT_TRUE(all_ok(compare_traces({{"mu", {1}, {1 + 0.9 * gate}}}, reference,
                                          KlTerm::analytic, precision)));
        EXPECT_FALSE(all_ok(compare_traces({{"mu", {1}, {1 + 1.1 * gate}}}, reference,
                                           KlTerm::analytic, precision)));
    }
}

}  // namespace
}  // namespace vae
