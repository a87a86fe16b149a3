// What of the data each likelihood refuses, to the word: the value, where it is, and what to do.
#include <gtest/gtest.h>

#include <cmath>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "host/data_source.h"
#include "host/error.h"
#include "tests/error_message.h"

namespace vae {
namespace {

using testing::contains;
using testing::message_of;
using Bytes = std::vector<std::uint8_t>;
using Floats = std::vector<float>;

constexpr std::size_t kBad = 11;  // the second example's last value

ModelConfig model_of(Likelihood likelihood, std::uint32_t levels = 256) {
    ModelConfig model;
    model.likelihood = likelihood;
    model.levels = levels;
    return model;
}

std::string refusal(Dataset data, const ModelConfig& model, Binarize binarize = Binarize::none) {
    return message_of<InputError>([&] { take_values(data, model, binarize, "here"); });
}

// Two examples of six values that are `good` but for one.
template <class Value>
Dataset data_with(Value bad, Value good = 0, ImageShape shape = {2, 3, 1}) {
    std::vector<Value> values(12, good);
    values[kBad] = bad;
    Dataset data;
    data.shape = shape;
    data.size = 2;
    data.values = std::move(values);
    return data;
}

const std::string kPlace = "here: example 1, row 1, column 2: the value ";

TEST(Support, FloatsThatAreRefused) {
    const std::string levels =
        " levels k/6 of [0,1]: round the values, or set model.levels to how many there are";
    struct Case {
        ModelConfig model;
        float value;
        std::string said;
    };
    const std::vector<Case> cases = {
        {model_of(Likelihood::bernoulli), 1.5F,
         "1.5 is outside [0,1], which the Bernoulli likelihood needs: scale the values, save bytes "
         "as uint8, or use the Gaussian one"},
        {model_of(Likelihood::logistic, 7), 0.25F, "0.25 is none of the 7" + levels},
        {model_of(Likelihood::categorical, 7), 0.25F, "0.25 is none of the 7" + levels},
        {model_of(Likelihood::categorical, 7), -1, "-1 is none of the 7" + levels},
        {model_of(Likelihood::categorical, 7), 2, "2 is none of the 7" + levels},
        {model_of(Likelihood::poisson), 2.5F,
         "2.5 is no count: the Poisson likelihood needs the integers 0, 1, 2, …: round the values, "
         "or use the Gaussian one"},
        {model_of(Likelihood::poisson), -1,
         "-1 is no count: the Poisson likelihood needs the integers 0, 1, 2, …: round the values, "
         "or use the Gaussian one"},
    };
    for (const Case& one : cases) {
        EXPECT_EQ(refusal(data_with(one.value), one.model), kPlace + one.said);
    }
    Dataset onehot = data_with(0.5F);
    onehot.values = Floats{0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1, 0.5F};
    EXPECT_EQ(
        refusal(onehot, model_of(Likelihood::onehot, 2)),
        kPlace +
            "0.5 is neither 0 nor 1, as a one-hot value is (bytes are taken as they are): encode "
            "the classes, or use "
            "the categorical likelihood");
    for (const auto binarize : {Binarize::dynamic, Binarize::fixed}) {
        EXPECT_EQ(refusal(data_with(1.5F), model_of(Likelihood::gaussian), binarize),
                  kPlace +
                      "1.5 is outside [0,1], which --binarize needs: scale the values, or "
                      "save bytes as uint8");
    }
}

TEST(Support, WhatIsNotFiniteIsRefusedByAll) {
    using enum Likelihood;
    const float infinity = std::numeric_limits<float>::infinity();
    for (const auto likelihood : {bernoulli, gaussian, logistic, categorical, onehot, poisson}) {
        for (const float value : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
            const std::string message = refusal(data_with(value), model_of(likelihood, 2));
            EXPECT_TRUE(message.starts_with(kPlace)) << message;
            EXPECT_TRUE(message.ends_with(" is not finite: remove or replace it")) << message;
        }
    }
}

// A byte is named as it is in the file, and as what it stands for.
TEST(Support, BytesThatAreRefused) {
    const Dataset data = data_with<std::uint8_t>(77);
    for (const auto likelihood : {Likelihood::logistic, Likelihood::categorical}) {
        EXPECT_EQ(refusal(data, model_of(likelihood, 7)),
                  kPlace +
                      "0.3019608 (byte 77) is none of the 7 levels k/6 of [0,1]: round the "
                      "values, or set model.levels to how many there are");
    }
    EXPECT_EQ(
        refusal(data, model_of(Likelihood::onehot, 2)),
        kPlace +
            "77 is neither 0 nor 1, as a one-hot value is (bytes are taken as they are): encode "
            "the classes, or use "
            "the categorical likelihood");
}

TEST(Support, WhatFitsIsTaken) {
    using enum Likelihood;
    for (const auto likelihood : {bernoulli, gaussian, logistic, categorical, poisson}) {
        EXPECT_EQ(refusal(data_with<std::uint8_t>(77), model_of(likelihood)), "");
        EXPECT_EQ(refusal(data_with(1.0F), model_of(likelihood)), "");
    }
    EXPECT_EQ(refusal(data_with(-7.5F), model_of(gaussian)), "");
    EXPECT_EQ(refusal(data_with(1e9F), model_of(poisson)), "");
    // Every 51st byte is a level of six, and a float is one if it is next to it.
    EXPECT_EQ(refusal(data_with<std::uint8_t>(102), model_of(categorical, 6)), "");
    // Near a level is not on it: bytes of 0 and 1 would all be level 0.
    for (const std::uint32_t levels : {2U, 3U, 255U}) {
        EXPECT_NE(refusal(data_with<std::uint8_t>(1), model_of(categorical, levels)), "");
        EXPECT_EQ(refusal(data_with<std::uint8_t>(255), model_of(categorical, levels)), "");
    }
    EXPECT_NE(refusal(data_with<std::uint8_t>(103), model_of(categorical, 6)), "");
    EXPECT_EQ(refusal(data_with(0.4F), model_of(logistic, 6)), "");
    EXPECT_EQ(refusal(data_with(std::nextafter(0.4F, 1.0F)), model_of(logistic, 6)), "");
    EXPECT_NE(refusal(data_with(0.41F), model_of(logistic, 6)), "");
}

TEST(Support, PositionsAreThoseOfTheShape) {
    const ModelConfig model = model_of(Likelihood::poisson);
    EXPECT_TRUE(contains(refusal(data_with(.5F, 0.F, {1, 6, 1}), model),
                         "here: example 1, position 5: the value 0.5"));
    EXPECT_TRUE(contains(refusal(data_with(.5F, 0.F, {1, 3, 2}), model),
                         "here: example 1, position 2, channel 1: the value"));
    EXPECT_TRUE(contains(refusal(data_with(.5F, 0.F, {3, 1, 2}), model),
                         "here: example 1, row 2, column 0, channel 1: the value"));
}

TEST(Support, GroupsHaveASingleOne) {
    Dataset data = data_with(0.0F);
    const auto message = [&](Floats values) {
        Bytes bytes(values.begin(), values.end());
        data.values = std::move(values);
        std::string of_floats = refusal(data, model_of(Likelihood::onehot, 3));
        data.values = std::move(bytes);
        EXPECT_EQ(refusal(data, model_of(Likelihood::onehot, 3)), of_floats);
        return of_floats;
    };
    EXPECT_EQ(message({1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0}), "");
    EXPECT_EQ(message({1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}),
              "here: example 1, row 1, column 0: the one-hot group of 3 values that starts here "
              "has 0 ones, not one: set model.levels to the number of classes, or mend the "
              "data");
    EXPECT_EQ(message({1, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 0}),
              "here: example 0, row 0, column 0: the one-hot group of 3 values that starts here "
              "has 3 ones, not one: set model.levels to the number of classes, or mend the "
              "data");
}

// Whatever the values are: under a wrong width they make no sense.
TEST(Support, AWrongWidthOfGroupsIsSaidFirst) {
    for (const std::uint32_t levels : {4U, 5U, 256U}) {
        for (const Dataset& data :
             {data_with(0.0F), data_with(77.0F), data_with<std::uint8_t>(9)}) {
            EXPECT_EQ(refusal(data, model_of(Likelihood::onehot, levels)),
                      "examples have 6 values, which are no whole one-hot groups of " +
                          std::to_string(levels) + ": set model.levels to the number of classes");
        }
    }
}

}  // namespace
}  // namespace vae
