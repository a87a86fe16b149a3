// Runs the tests of one program on a GPU. Without one it says so and exits with the status that
// CTest counts as skipped, so that nothing that did not run is reported as passed.
#include <gtest/gtest.h>

#include "tests/gpu_presence.h"

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    const int status = vae::test::gpu_exit_status();
    return status != 0 ? status : RUN_ALL_TESTS();
}
