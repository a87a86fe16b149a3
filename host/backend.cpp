#include "host/backend.h"

namespace vae {

LossTotals& LossTotals::operator+=(const LossTotals& other) {
    recon += other.recon;
    kl += other.kl;
    loss += other.loss;
    examples += other.examples;
    return *this;
}

}  // namespace vae
