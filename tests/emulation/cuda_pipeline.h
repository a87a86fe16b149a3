// Found before the real header of this name, which adds to its primitives what no kernel uses.
#pragma once

#include "cuda_pipeline_primitives.h"
