// Every kind of data that cannot be used, given to the real program: one line that says what is
// wrong, and no file.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "host/image.h"
#include "host/npy.h"
#include "tests/cli_fixture.h"
#include "tests/data_files.h"
#include "tests/error_message.h"
#include "tests/temporary_folder.h"

namespace vae {
namespace {

namespace fs = std::filesystem;
using testing::BadRequest;
using testing::contains;
using testing::gzip;
using testing::idx;
using testing::put_file;

// An .npy file of version 1.0.
std::string npy(const std::string& type, const std::string& shape, const std::string& data,
                const std::string& fortran = "False") {
    const std::string header =
        "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }\n";
    return std::string("\x93NUMPY\x01\0", 8) + static_cast<char>(header.size()) + '\0' + header +
           data;
}

// The file with bits of one byte changed.
std::string changed(std::string file, std::size_t at, int bits) {
    file[at] = static_cast<char>(file[at] ^ bits);
    return file;
}

class CliBadDataTest : public testing::CliTest {
  protected:
    // A file of that name, refused as data with such a message.
    void put(const std::string& name, const std::string& content, const std::string& message) {
        put_file(work() / name, content);
        add(name, message);
    }

    // mnist:NAME, whose two files are these.
    void put_mnist(const std::string& name, const std::string& train, const std::string& test,
                   const std::string& message) {
        fs::create_directory(work() / name);
        put_file(work() / name / "train-images-idx3-ubyte", train);
        put_file(work() / name / "t10k-images-idx3-ubyte", test);
        add("mnist:" + name, message);
    }

    void add(const std::string& data, const std::string& message) {
        requests_.push_back({"train --out new --data " + data, 2, message});
        requests_.push_back({"compare --data " + data, 2, message});
    }

    void expect_all_refused() const {
        ASSERT_FALSE(requests_.empty());
        expect_refused(requests_);
    }

    std::vector<BadRequest> requests_;
};

TEST_F(CliBadDataTest, SourcesThatAreNotThere) {
    put("empty", "", "empty: the file is empty");
    put("text", "this is no image", "text: it is neither an IDX nor an .npy file");
    fs::create_directory(work() / "folder");
    add("nothing.npy", "no data 'nothing.npy'");
    add("folder", "folder: the folder has no .png, .jpg or .jpeg file");
    add("mnist:folder", "folder: no train-images-idx3-ubyte there");
    add("mnist:nowhere", "nowhere: no train-images-idx3-ubyte there");
    add("synthetic:nonsense", "no synthetic data set 'nonsense'");
    expect_all_refused();
}

TEST_F(CliBadDataTest, IdxFiles) {
    const std::string good = idx({2, 2, 2}, "12345678");
    put("magic.idx", changed(good, 0, 1), "magic.idx: it is neither an IDX nor an .npy file");
    put("type.idx", idx({2, 2, 2}, "12345678", 0x0d), "type.idx: its IDX type code is 0x0d");
    put("labels.idx", idx({8}, "12345678"), "labels.idx: its IDX rank is 1, and images have 2 to");
    put("header.idx", good.substr(0, 9), "header.idx: the file ends within its header");
    put("short.idx", good.substr(0, good.size() - 3),
        "short.idx: the file is too short for its shape [2, 2, 2]: it holds 5 bytes");
    put("long.idx", good + "more", "long.idx: 4 bytes follow the images of shape [2, 2, 2]");
    put("none.idx", idx({0, 2, 2}, ""), "none.idx: it holds no examples");
    put("flat.idx", idx({2, 0, 2}, ""), "flat.idx: its examples have no pixels");
    put("huge.idx", idx({0xffffffff, 0xffffffff, 0xffffffff}, "1"), "huge.idx: the file is too sh");
    expect_all_refused();
}

TEST_F(CliBadDataTest, GzippedFiles) {
    const std::string packed = gzip(idx({2, 2, 2}, "12345678"));
    put("cut.gz", packed.substr(0, packed.size() - 9), "cut.gz: the gzip data ends too early");
    put("damaged.gz", changed(packed, packed.size() - 6, 0x55),
        "damaged.gz: the gzip data is damaged");
    put("more.gz", packed + "more", "more.gz: the gzip data is damaged, or followed by something");
    put("short.gz", gzip(idx({2, 2, 2}, "12")), "short.gz: the file is too short for its shape");
    put("text.gz", gzip("this is no image"), "text.gz: it is neither an IDX nor an .npy file");
    expect_all_refused();
}

TEST_F(CliBadDataTest, MnistFolders) {
    const std::string two = idx({2, 2, 2}, "12345678");
    put_mnist("sizes", two, idx({1, 3, 3}, "123456789"),
              "t10k-images-idx3-ubyte: its images are 3x3x1, and those of train-images-idx3-ubyte "
              "are 2x2x1");
    put_mnist("magic", two.substr(1), two, "train-images-idx3-ubyte: it does not start as an IDX");
    put_mnist("cut", two, two.substr(0, 20), "t10k-images-idx3-ubyte: the file is too short");
    fs::create_directory(work() / "one");
    put_file(work() / "one" / "train-images-idx3-ubyte", two);
    add("mnist:one", "one: no t10k-images-idx3-ubyte there");
    expect_all_refused();
}

TEST_F(CliBadDataTest, NpyFiles) {
    const std::string bytes = "12345678";
    const std::string good = npy("|u1", "(4, 2)", bytes);
    put("header.npy", "\x93NUMPY\x01", "header.npy: the file ends within its header");
    put("magic.npy", changed(good, 5, 1), "magic.npy: it is not an .npy file");
    put("version.npy", changed(good, 6, 7), "version 6.0 is not known");
    put("short.npy", good.substr(0, good.size() - 1), "short.npy: the file is too short for its");
    put("long.npy", good + "9", "long.npy: 1 bytes follow the array of shape [4, 2]");
    put("rank.npy", npy("|u1", "(8,)", bytes), "rank.npy: its shape is [8], and examples have the");
    put("deep.npy", npy("|u1", "(2, 2, 2, 1, 1)", bytes), "deep.npy: its shape is [2, 2, 2, 1, 1]");
    put("type.npy", npy("<i8", "(1, 1)", bytes), "type.npy: its type is '<i8', and uint8");
    put("order.npy", npy("|u1", "(4, 2)", bytes, "True"), "order.npy: it is in Fortran order");
    put("none.npy", npy("|u1", "(0, 2)", ""), "none.npy: it holds no examples");
    put("broken.npy", npy("|u1", "(4, x)", bytes), "broken.npy: the .npy header is malformed");
    const std::size_t shape[] = {3, 2};
    const std::vector<float> large = {0.5F, 2.0F, 0, 0, 0, 0};
    write_npy(work() / "large.npy", large, shape);
    add("large.npy", "example 0, position 1: the value 2 is outside [0,1]");
    const std::vector<float> lost = {0, 0, 0, 0, std::nanf(""), 0};
    write_npy(work() / "lost.npy", lost, shape);
    add("lost.npy", "example 2, position 0: ");
    expect_all_refused();
}

TEST_F(CliBadDataTest, FoldersOfImages) {
    const std::vector<float> pixels(12, 0.5F);
    for (const char* folder : {"sizes", "cut", "text"}) {
        fs::create_directory(work() / folder);
        write_png_grid(work() / folder / "a.png", pixels, {3, 4, 1}, 1);
    }
    write_png_grid(work() / "sizes" / "b.png", pixels, {4, 3, 1}, 1);
    const std::string whole = testing::text_of(work() / "cut" / "a.png");
    put_file(work() / "cut" / "b.png", whole.substr(0, whole.size() / 2));
    put_file(work() / "text" / "b.jpg", "this is no image");
    add("sizes", "sizes/b.png: it is ");
    add("cut", "cut/b.png: it is not a whole PNG or JPEG image");
    add("text", "text/b.jpg: it is not a whole PNG or JPEG image");
    expect_all_refused();
}

TEST_F(CliBadDataTest, SettingsThatDoNotFitTheData) {
    put_file(work() / "config.toml", "[train]\nbatch = 8\n\n[model]\nlatnet = 3\n");
    put_file(work() / "broken.toml", "[train\n");
    requests_ = {
        {"train --config config.toml", 2, "config.toml:5: unknown setting model.latnet"},
        {"train --config broken.toml", 2, "broken.toml:1: "},
        {"train --data synthetic:bars --set data.validation=6000", 2, "data.validation"},
        {"train --data synthetic:bars --batch 1 --set train.epochs=1000000", 2, "too many"},
        {"train --data synthetic:bars --hidden 1000000,1000000", 2, "too large"},
    };
    expect_all_refused();
}

#ifndef __SANITIZE_ADDRESS__  // which needs terabytes of addresses
// 64 GiB of zeros that take no room on the disk.
TEST_F(CliBadDataTest, DataThatAddressesDoNotReach) {
    put_file(work() / "huge.idx", idx({1u << 16, 1u << 10, 1u << 10}, ""));
    fs::resize_file(work() / "huge.idx", (std::uint64_t{1} << 36) + 16);
    EXPECT_EQ(shell("train --data huge.idx --out new 2>error", "ulimit -v 4000000"), 1);
    const std::string error = testing::text_of(work() / "error");
    EXPECT_TRUE(contains(error, "vae: error: cannot map huge.idx")) << error;
    EXPECT_TRUE(contains(error, "ulimit -v")) << error;
    EXPECT_FALSE(fs::exists(work() / "new"));
}

// 2 GiB of zeros, which must be read: they begin at an odd byte.
TEST_F(CliBadDataTest, DataThatMemoryDoesNotHold) {
    std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (536870912, 1), }";
    header.resize(117, ' ');
    put_file(work() / "huge.npy", std::string("\x93NUMPY\x01\x00\x75\x00", 10) + header);
    fs::resize_file(work() / "huge.npy", (std::uint64_t{1} << 31) + 127);
    EXPECT_EQ(shell("train --data huge.npy --out new 2>error", "ulimit -v 4000000"), 1);
    const std::string error = testing::text_of(work() / "error");
    EXPECT_TRUE(contains(error, "vae: error: out of memory: the data, the model and")) << error;
    EXPECT_FALSE(fs::exists(work() / "new"));
}
#endif

}  // namespace
}  // namespace vae
