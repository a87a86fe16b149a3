// The encoder's heads as a dense layer, whose product is that of all of them.
#pragma once

#include "host/parameters.h"

namespace vae::gpu {

// Both heads as the one layer that they are.
inline DenseLayer heads_as_layer(const Heads& heads) {
    DenseLayer layer;
    layer.in = heads.in;
    layer.out = heads.product_width();
    layer.weight.offset = heads.mu_weight.offset;
    return layer;
}

// A diagonal posterior's as a gated layer, whose parameters lie as theirs.
inline DenseLayer heads_as_pair(const Heads& heads) {
    DenseLayer layer = heads_as_layer(heads);
    layer.out = heads.latent;
    layer.stride = heads.stride;
    layer.bias = heads.mu_bias;
    layer.gate_bias = heads.logvar_bias;
    return layer;
}

}  // namespace vae::gpu
