#include "host/gpu/kernel_times.h"

#include <algorithm>
#include <map>

namespace vae::gpu {

void KernelTimes::before(std::string_view what, cudaStream_t stream) {
    launches_.emplace_back().name = what;
    launches_.back().interval.start.record_in_graph(stream);
}

void KernelTimes::after(cudaStream_t stream) {
    launches_.back().interval.end.record_in_graph(stream);
}

void KernelTimes::collect() {
    for (Launch& launch : launches_) launch.interval.collect();
    if (nothing_) nothing_->collect();
    ++replays_;
}

double KernelTimes::mean(const TimedInterval& interval) const {
    return 1000 * interval.milliseconds / std::max(1, replays_);
}

std::vector<KernelTime> KernelTimes::means() const {
    std::map<std::string, KernelTime> by_name;
    for (const Launch& launch : launches_) {
        KernelTime& kernel = by_name[launch.name];
        kernel.name = launch.name;
        kernel.launches += 1;
        kernel.microseconds += mean(launch.interval);
    }
    std::vector<KernelTime> result;
    result.reserve(by_name.size());
    for (auto& [name, kernel] : by_name) result.push_back(kernel);
    std::stable_sort(result.begin(), result.end(), [](const KernelTime& a, const KernelTime& b) {
        return a.microseconds > b.microseconds;
    });
    return result;
}

}  // namespace vae::gpu
