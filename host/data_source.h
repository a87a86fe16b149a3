// From a SPEC on the command line to examples in memory.
//
//   fashion-mnist   the folder in $VAE_DATA (or its subfolder fashion-mnist) when that is set, else
//                   Debian's package dataset-fashion-mnist
//   mnist:DIR       four IDX files in DIR, plain or .gz, named train-images-idx3-ubyte or
//                   train-images.idx3-ubyte, and so on
//   FILE            an IDX file of bytes (N,D / N,H,W / N,H,W,C), plain or gzipped, or an .npy file
//                   of uint8 or float32 of these shapes; recognized by content, not by name
//   FOLDER          PNG and JPEG images of one size, in the order of their names; all are taken as
//                   grey or all as RGB, as the first one is, and alpha is dropped
//   synthetic:linear-gaussian, synthetic:bars     small analytic sets, see host/synthetic.h
//
// IDX and .npy files that are not packed are mapped (host/mapped_file.h): they take no memory, and
// may be larger than it.
//
// fashion-mnist, mnist and synthetic have a test set of their own. Of other sources the last tenth
// (rounded down, but at least one of two examples or more) is the test split.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "host/config.h"
#include "host/dataset.h"

namespace vae {

// The splits of data.source. The last data.validation training examples become the validation
// split. first_index counts training from 0, then validation, then test. Values are checked with
// check_support; bytes are what the likelihood takes them for. Every problem with the source is an
// InputError of one line.
Splits load_splits(const DataConfig& data, const ModelConfig& model);

// The test set of a source that has one of its own, all examples of any other. first_index is what
// load_splits counts for them, so that they are binarized alike. Values are not checked,
// and bytes are no counts.
Dataset load_examples(const std::string& spec);

// Whether the SPEC is a FILE or a FOLDER, and so has no test set of its own.
bool is_one_set(const std::string& spec);

// The path in a SPEC of a FILE, a FOLDER or mnist:DIR.
std::optional<std::filesystem::path> path_of_source(const std::string& spec);

// The files that are read for a SPEC, or would be if they were there, and the FOLDER; none for
// synthetic data, and for an empty SPEC. Throws InputError when the system does not say, or the
// FOLDER has no pictures.
std::vector<std::filesystem::path> paths_read(const std::string& spec);

// The SPEC with the path of a FILE, a FOLDER or mnist:DIR absolute and without symbolic links, so
// that it names the same data from anywhere. Unchanged when there is no such file.
std::string absolute_source(const std::string& spec);

// Makes bytes what the model's likelihood takes them for, and checks the values by check_support.
void take_values(Dataset& data, const ModelConfig& model, Binarize binarize,
                 const std::string& source);

// Throws an InputError that names the source, the example, the position and the value of the first
// value that the likelihood gives no probability: outside [0,1] for a Bernoulli likelihood and
// binarized pixels, on none of the levels, not one 1 among zeros in a one-hot group, no count; or
// that is not finite.
void check_support(const Dataset& data, const ModelConfig& model, Binarize binarize,
                   const std::string& source);

// The least possible −log p(x|z) of a Bernoulli likelihood, whatever the model, when pixels x in
// [0,1] are not binarized: Σ_pixels −x ln x − (1−x) ln(1−x), mean over examples, in nats. 0 when
// all pixels are 0 or 1, or there is no example.
double entropy_floor(const Dataset& data);

// What a user should know before training on the splits, a line each: grey pixels under a Bernoulli
// likelihood without binarization (with the test split's entropy floor, or the training split's
// when there is no test split).
std::vector<std::string> data_warnings(const Splits& splits, const DataConfig& data,
                                       Likelihood likelihood);

}  // namespace vae
