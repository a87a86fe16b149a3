// What a person sees of a long run: on a terminal one line that is kept up to date, elsewhere a
// plain line now and then.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

#include "host/metrics.h"

namespace vae {

// "3 h 05 min", "2 min 07 s", "12 s".
std::string duration_text(double seconds);

// "9876", "12.3 k", "1.23 M": examples a second.
std::string rate_text(double per_second);

class Progress {
  public:
    // A null stream shows nothing. A stream that cannot be written stops no run; std::ferror tells.
    Progress(std::FILE* out, bool is_terminal);
    // Takes the status line and an echoed ^C off the terminal: an error starts a line of its own.
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    Progress(Progress&&) = delete;
    Progress& operator=(Progress&&) = delete;
    // On standard output.
    static Progress standard();

    // A line that stays.
    void line(const std::string& text);

    // Where the running epoch is. Shown at most every tenth of a second on a terminal, and
    // elsewhere at most every ten seconds.
    struct Status {
        std::uint32_t epoch = 0;  // from 1
        std::uint32_t epochs = 0;
        std::uint64_t step = 0;
        std::uint64_t steps = 0;  // of the whole run
        LossTotals totals;        // of the running epoch
        double examples_per_second = 0;
        double seconds_left = 0;
    };
    void update(const Status& status);

  private:
    using Clock = std::chrono::steady_clock;

    void clear();

    std::FILE* out_;
    bool is_terminal_;
    bool has_status_ = false;  // a status line is on the terminal
    Clock::time_point shown_;
};

// What update() shows: the most important fields first, and of them as many as fit.
std::string status_text(const Progress::Status& status, std::size_t columns);

}  // namespace vae
