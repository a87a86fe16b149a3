#include "host/dataset.h"

namespace vae {

const char* name_of(Split split) {
    switch (split) {
        case Split::train:
            return "train";
        case Split::validation:
            return "validation";
        case Split::test:
            return "test";
    }
    return "unknown";
}

const Dataset& Splits::of(Split split) const {
    switch (split) {
        case Split::validation:
            return validation;
        case Split::test:
            return test;
        case Split::train:
            break;
    }
    return train;
}

Split Splits::held_out() const {
    if (validation.size > 0) return Split::validation;
    return test.size > 0 ? Split::test : Split::train;
}

}  // namespace vae
