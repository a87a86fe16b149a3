#include "host/gpu/resident_data.h"

namespace vae::gpu {

ResidentData::ResidentData(const Dataset& data, const Stream& stream)
    : pixels_(static_cast<int>(data.shape.pixels())), first_index_(data.first_index) {
    if (const auto* bytes = std::get_if<ByteValues>(&data.values)) {
        bytes_ = {bytes->size(), "the data"};
        bytes_.upload(*bytes, stream);
    } else {
        const auto& floats = std::get<FloatValues>(data.values);
        floats_ = {floats.size(), "the data"};
        floats_.upload(floats, stream);
    }
}

void ResidentData::gather(const std::uint32_t* index, std::uint32_t offset, int rows,
                          kernels::Pixels pixels, const kernels::NoiseStream& noise,
                          const GatheredBatch& to, const Stream& stream) const {
    const std::size_t skip = static_cast<std::size_t>(offset) * static_cast<std::size_t>(pixels_);
    const std::uint32_t first = first_index_ + offset;
    if (floats_.size() == 0) {
        kernels::gather(bytes_.data() + skip, index, nullptr, rows, pixels_, pixels, noise, first,
                        to.x, to.rounded, stream.get());
    } else {
        kernels::gather(floats_.data() + skip, index, nullptr, rows, pixels_, pixels, noise, first,
                        to.x, to.rounded, stream.get());
    }
}

}  // namespace vae::gpu
