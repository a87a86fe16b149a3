// Initial biases that know the data's mean (model.data_bias).
#pragma once

#include <span>
#include <vector>

#include "host/config.h"
#include "host/dataset.h"
#include "host/parameters.h"

namespace vae {

// What stands for 1 in the values of the data.
double unit_of(const Dataset& data);

// The mean of each pixel over all examples, bytes as what they stand for: sums in double in the
// examples' order, so always the same bits. There is at least one example.
std::vector<double> pixel_means(const Dataset& data);

// Sets decoder.out.bias to what gives the likelihood the means of the data where the rest of the
// output is zero: for Bernoulli their logits (Hinton 2010, section 8.1), clipped to [1/(2N),
// 1 − 1/(2N)] for N examples; for one-hot and Poisson their logs, at least that of 1/(2N); for the
// Gaussian and the logistic the means, scales staying as they were; for categorical the logs of how
// often each level of the pixel is met, each counted half an example more. Shifts the biases of the
// first layer by −W·means of what the encoder sees, so that it sees data with mean zero (LeCun et
// al. 1998, section 4.3). The clip is where N examples cannot tell a rate from 0 or 1: half an
// example; it bounds a logit by ln(2N − 1).
void set_data_bias(const ModelConfig& model, const ParameterLayout& layout, const Dataset& data,
                   std::span<float> parameters);

}  // namespace vae
