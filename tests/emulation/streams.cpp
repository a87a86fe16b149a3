// Streams and events of the CUDA runtime: queues that run when somebody synchronizes.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "runtime.h"

namespace emulation {
namespace {

constexpr int kLeastPriority = 0;
constexpr int kGreatestPriority = -5;

cudaError_t create_stream(cudaStream_t* out, unsigned flags, int priority, const char* who) {
    if (out == nullptr || (flags != cudaStreamDefault && flags != cudaStreamNonBlocking)) {
        return cudaErrorInvalidValue;
    }
    *out = nullptr;
    if (const cudaError_t status = check_no_capture(who); status != cudaSuccess) return status;
    auto stream = std::make_unique<CUstream_st>();
    stream->flags = flags;
    stream->priority = std::clamp(priority, kGreatestPriority, kLeastPriority);
    runtime().streams.push_back(stream.get());
    *out = stream.release();
    return cudaSuccess;
}

cudaError_t create_event(cudaEvent_t* out, unsigned flags) {
    constexpr unsigned kKnown = cudaEventBlockingSync | cudaEventDisableTiming;
    if (out == nullptr || (flags & ~kKnown) != 0) return cudaErrorInvalidValue;
    auto event = std::make_unique<CUevent_st>();
    event->flags = flags;
    runtime().events.push_back(event.get());
    *out = event.release();
    return cudaSuccess;
}

cudaError_t check_event(cudaEvent_t event) {
    return event != nullptr && contains(runtime().events, event) ? cudaSuccess
                                                                 : cudaErrorInvalidResourceHandle;
}

// On average as many as are given, and sometimes many.
void run_some_meanwhile() {
    Runtime& device = runtime();
    if (!device.meanwhile) return;
    Random& random = *device.meanwhile;
    for (std::uint64_t left = random.below(3); left > 0; --left) {
        const cudaStream_t stream = device.streams[random.below(device.streams.size())];
        if (random.below(16) == 0) {
            run_stream(stream);
        } else {
            run_one(stream);
        }
    }
}

bool is_live(const Capture* capture) {
    return std::any_of(runtime().captures.begin(), runtime().captures.end(),
                       [&](const auto& each) { return each.get() == capture; });
}

void record(CUevent_st& event, cudaStream_t stream) {
    event.capture = stream->capture;
    if (stream->capture != nullptr) {
        event.frontier = stream->capture->frontiers[stream];
        return;
    }
    auto mark = std::make_shared<Mark>();
    mark->stream = stream;
    event.mark = mark;
    enqueue(stream, {cudaGraphNodeTypeEventRecord, [mark] {
                         mark->reached = true;
                         mark->when = std::chrono::steady_clock::now();
                     }});
}

// Waiting for what another stream captured draws a stream into that capture.
cudaError_t wait_for_captured(cudaStream_t stream, const CUevent_st& event) {
    Capture& capture = *event.capture;
    if (stream->capture != nullptr && stream->capture != &capture) {
        capture.is_valid = false;
        stream->capture->is_valid = false;
        return cudaErrorStreamCaptureMerge;
    }
    stream->capture = &capture;
    capture.frontiers[stream].insert(event.frontier.begin(), event.frontier.end());
    return cudaSuccess;
}

cudaError_t wait_for_event(cudaStream_t stream, const CUevent_st& event) {
    if (event.capture != nullptr && is_live(event.capture)) {
        return wait_for_captured(stream, event);
    }
    if (stream->capture != nullptr) {
        stream->capture->is_valid = false;
        return refuse(cudaErrorStreamCaptureIsolation,
                      "cudaStreamWaitEvent: a captured stream cannot wait for an event that was "
                      "recorded outside of its capture");
    }
    if (event.mark == nullptr || event.mark->reached) return cudaSuccess;
    enqueue(stream, {cudaGraphNodeTypeWaitEvent, [mark = event.mark] { run_until(mark); }});
    return cudaSuccess;
}

cudaError_t check_not_captured(const CUevent_st& event) {
    if (event.capture == nullptr || !is_live(event.capture)) return cudaSuccess;
    event.capture->is_valid = false;
    return cudaErrorCapturedEvent;
}

}  // namespace

cudaError_t check_stream(cudaStream_t stream, const char* who) {
    if (stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread) {
        return refuse(cudaErrorInvalidResourceHandle,
                      fmt::format("{}: the default stream is not to be used", who));
    }
    if (!contains(runtime().streams, stream)) {
        return refuse(cudaErrorInvalidResourceHandle, fmt::format("{}: no such stream", who));
    }
    if (stream->capture != nullptr && !stream->capture->is_valid) {
        return cudaErrorStreamCaptureInvalidated;
    }
    return cudaSuccess;
}

void enqueue(cudaStream_t stream, Operation operation) {
    if (stream->capture == nullptr) {
        stream->pending.push_back(std::move(operation));
        run_some_meanwhile();
        return;
    }
    Capture& capture = *stream->capture;
    Frontier& frontier = capture.frontiers[stream];
    const std::size_t number = capture.nodes.size();
    capture.nodes.push_back({std::move(operation), std::move(frontier)});
    frontier = {number};
}

cudaError_t check_no_capture(const char* who) {
    for (const auto& capture : runtime().captures) {
        if (capture->mode == cudaStreamCaptureModeRelaxed) continue;
        capture->is_valid = false;
        return refuse(cudaErrorStreamCaptureUnsupported,
                      fmt::format("{}: not allowed while a stream captures", who));
    }
    return cudaSuccess;
}

cudaError_t check_not_capturing(cudaStream_t stream, const char* who) {
    if (stream->capture == nullptr) return cudaSuccess;
    stream->capture->is_valid = false;
    return refuse(cudaErrorStreamCaptureUnsupported,
                  fmt::format("{}: not allowed on a stream that captures", who));
}

void run_one(cudaStream_t stream) {
    if (stream->pending.empty()) return;
    const Operation operation = std::move(stream->pending.front());
    stream->pending.pop_front();
    const std::optional<int> fault = injected_fault("execution");
    if (!fault) {
        operation.run();
    } else if (*fault != cudaSuccess) {
        break_device(static_cast<cudaError_t>(*fault), "an operation was made to fail");
    }
}

void run_stream(cudaStream_t stream) {
    while (!stream->pending.empty()) run_one(stream);
}

void run_until(const std::shared_ptr<Mark>& mark) {
    while (!mark->reached && contains(runtime().streams, mark->stream) &&
           !mark->stream->pending.empty()) {
        run_one(mark->stream);
    }
}

void run_all() {
    Runtime& device = runtime();
    std::vector<cudaStream_t> streams = device.streams;
    if (device.turns.order == Turns::Order::descending)
        std::reverse(streams.begin(), streams.end());
    const auto drop_idle = [&] {
        std::erase_if(streams, [](cudaStream_t stream) { return stream->pending.empty(); });
    };
    for (drop_idle(); !streams.empty(); drop_idle()) {
        const bool random = device.turns.order == Turns::Order::random;
        run_one(streams[random ? device.turns.random.below(streams.size()) : 0]);
    }
}

void run_blocking_streams() {
    for (const cudaStream_t stream : runtime().streams) {
        if (stream->flags != cudaStreamNonBlocking) run_stream(stream);
    }
}

}  // namespace emulation

using emulation::call;
using emulation::Runtime;
using emulation::WhenBroken;

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
    return call("cudaStreamCreate", [&](Runtime&) {
        return emulation::create_stream(stream, cudaStreamDefault, 0, "cudaStreamCreate");
    });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    return call("cudaStreamCreateWithFlags", [&](Runtime&) {
        return emulation::create_stream(stream, flags, 0, "cudaStreamCreateWithFlags");
    });
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
    return call("cudaStreamCreateWithPriority", [&](Runtime&) {
        return emulation::create_stream(stream, flags, priority, "cudaStreamCreateWithPriority");
    });
}

// Work that was given to the stream is still done.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    return call(
        "cudaStreamDestroy",
        [&](Runtime& device) {
            cudaError_t status = emulation::check_stream(stream, "cudaStreamDestroy");
            if (status == cudaSuccess) {
                status = emulation::check_not_capturing(stream, "cudaStreamDestroy");
            }
            if (status != cudaSuccess) return status;
            emulation::run_stream(stream);
            std::erase(device.streams, stream);
            delete stream;
            return cudaSuccess;
        },
        WhenBroken::run_anyway);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return call("cudaStreamSynchronize", [&](Runtime&) {
        cudaError_t status = emulation::check_stream(stream, "cudaStreamSynchronize");
        if (status == cudaSuccess) {
            status = emulation::check_not_capturing(stream, "cudaStreamSynchronize");
        }
        if (status == cudaSuccess) emulation::run_stream(stream);
        return status;
    });
}

// Runs one operation, so that who asks again and again gets there.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    return call("cudaStreamQuery", [&](Runtime&) {
        cudaError_t status = emulation::check_stream(stream, "cudaStreamQuery");
        if (status == cudaSuccess) {
            status = emulation::check_not_capturing(stream, "cudaStreamQuery");
        }
        if (status != cudaSuccess || stream->pending.empty()) return status;
        emulation::run_one(stream);
        return cudaErrorNotReady;
    });
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
    return call("cudaStreamGetFlags", [&](Runtime&) {
        const cudaError_t status = emulation::check_stream(stream, "cudaStreamGetFlags");
        if (status != cudaSuccess || flags == nullptr) {
            return status == cudaSuccess ? cudaErrorInvalidValue : status;
        }
        *flags = stream->flags;
        return cudaSuccess;
    });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    return call("cudaStreamWaitEvent", [&](Runtime&) {
        if (flags != cudaEventWaitDefault) return cudaErrorNotSupported;
        cudaError_t status = emulation::check_stream(stream, "cudaStreamWaitEvent");
        if (status == cudaSuccess) status = emulation::check_event(event);
        return status == cudaSuccess ? emulation::wait_for_event(stream, *event) : status;
    });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
    return call("cudaLaunchHostFunc", [&](Runtime&) {
        if (function == nullptr) return cudaErrorInvalidValue;
        const cudaError_t status = emulation::check_stream(stream, "cudaLaunchHostFunc");
        if (status != cudaSuccess) return status;
        emulation::enqueue(stream, {cudaGraphNodeTypeHost, [function, data] { function(data); }});
        return cudaSuccess;
    });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
    return call("cudaEventCreate",
                [&](Runtime&) { return emulation::create_event(event, cudaEventDefault); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    return call("cudaEventCreateWithFlags",
                [&](Runtime&) { return emulation::create_event(event, flags); });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    return call("cudaEventRecord", [&](Runtime&) {
        cudaError_t status = emulation::check_stream(stream, "cudaEventRecord");
        if (status == cudaSuccess) status = emulation::check_event(event);
        if (status == cudaSuccess) emulation::record(*event, stream);
        return status;
    });
}

// External: a node of the graph, which records at each replay and orders nothing.
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
    return call("cudaEventRecordWithFlags", [&](Runtime&) {
        if (flags != cudaEventRecordDefault && flags != cudaEventRecordExternal) {
            return cudaErrorInvalidValue;
        }
        cudaError_t status = emulation::check_stream(stream, "cudaEventRecordWithFlags");
        if (status == cudaSuccess) status = emulation::check_event(event);
        if (status != cudaSuccess) return status;
        if (flags == cudaEventRecordDefault) {
            emulation::record(*event, stream);
            return cudaSuccess;
        }
        // There is no graph to be external to.
        if (stream->capture == nullptr) return cudaErrorInvalidValue;
        emulation::enqueue(stream, {cudaGraphNodeTypeEventRecord, [event] {
                                        if (emulation::check_event(event) != cudaSuccess) return;
                                        event->mark = std::make_shared<emulation::Mark>();
                                        event->mark->reached = true;
                                        event->mark->when = std::chrono::steady_clock::now();
                                    }});
        return cudaSuccess;
    });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    return call("cudaEventSynchronize", [&](Runtime&) {
        cudaError_t status = emulation::check_event(event);
        if (status == cudaSuccess) status = emulation::check_not_captured(*event);
        if (status == cudaSuccess && event->mark != nullptr) emulation::run_until(event->mark);
        return status;
    });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    return call("cudaEventQuery", [&](Runtime&) {
        cudaError_t status = emulation::check_event(event);
        if (status == cudaSuccess) status = emulation::check_not_captured(*event);
        if (status != cudaSuccess || event->mark == nullptr || event->mark->reached) return status;
        emulation::run_one(event->mark->stream);
        return cudaErrorNotReady;
    });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
    return call("cudaEventElapsedTime", [&](Runtime&) {
        if (milliseconds == nullptr) return cudaErrorInvalidValue;
        for (const cudaEvent_t event : {start, end}) {
            if (const cudaError_t status = emulation::check_event(event); status != cudaSuccess) {
                return status;
            }
            if (event->mark == nullptr || (event->flags & cudaEventDisableTiming) != 0) {
                return cudaErrorInvalidResourceHandle;
            }
            if (!event->mark->reached) return cudaErrorNotReady;
        }
        *milliseconds =
            std::chrono::duration<float, std::milli>(end->mark->when - start->mark->when).count();
        return cudaSuccess;
    });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    return call(
        "cudaEventDestroy",
        [&](Runtime& device) {
            const cudaError_t status = emulation::check_event(event);
            if (status != cudaSuccess) return status;
            std::erase(device.events, event);
            delete event;
            return cudaSuccess;
        },
        WhenBroken::run_anyway);
}

}  // extern "C"
