// scatter_svg of host/gradient_variance.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "host/gradient_variance.h"

namespace vae {
namespace {

constexpr double kWidth = 860;
constexpr double kLeft = 290;   // where bars begin
constexpr double kRight = 770;  // and the longest ends
constexpr double kTop = 70;
constexpr double kRowHeight = 42;
constexpr double kBarHeight = 14;
constexpr const char* kEncoderColour = "#3465a4";
constexpr const char* kDecoderColour = "#a0a0a0";

// Whole decades around every variance that can be drawn.
struct Decades {
    int least = 0;
    int most = 1;

    explicit Decades(const std::vector<GradientScatter>& all) {
        double low = std::numeric_limits<double>::infinity();
        double high = 0;
        for (const GradientScatter& row : all) {
            for (const double variance : {row.encoder.variance, row.decoder.variance}) {
                if (!std::isfinite(variance) || variance <= 0) continue;
                low = std::min(low, variance);
                high = std::max(high, variance);
            }
        }
        if (high == 0) return;
        least = static_cast<int>(std::floor(std::log10(low))) - 1;
        most = std::max(static_cast<int>(std::ceil(std::log10(high))), least + 1);
    }

    double position(double log10) const {
        return kLeft + (kRight - kLeft) * (log10 - least) / (most - least);
    }
};

std::string text_at(double x, double y, const char* anchor, const std::string& text) {
    std::string escaped;
    for (const char c : text) {
        if (c == '<') {
            escaped += "&lt;";
        } else if (c == '&') {
            escaped += "&amp;";
        } else {
            escaped += c;
        }
    }
    return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y,
                       anchor, escaped);
}

std::string bar(const Decades& decades, double y, double variance, const char* colour) {
    if (!std::isfinite(variance) || variance <= 0) return text_at(kLeft + 4, y + 11, "start", "–");
    const double end = decades.position(std::log10(variance));
    return fmt::format(
               "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" "
               "fill=\"{}\"/>\n",
               kLeft, y, end - kLeft, kBarHeight, colour) +
           text_at(end + 5, y + 11, "start", fmt::format("{:.2g}", variance));
}

std::string axis(const Decades& decades, double bottom) {
    std::string svg;
    // Ten labels at most.
    const int step = (decades.most - decades.least - 1) / 10 + 1;
    for (int decade = decades.least; decade <= decades.most; decade += step) {
        const double x = decades.position(decade);
        svg += fmt::format(
            "<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\" "
            "stroke=\"#d0d0d0\"/>\n",
            x, kTop - 6, bottom);
        svg += text_at(x, bottom + 16, "middle", fmt::format("1e{}", decade));
    }
    return svg;
}

std::string legend() {
    std::string svg;
    double x = kLeft;
    for (const auto& [name, colour] :
         {std::pair("encoder", kEncoderColour), std::pair("decoder", kDecoderColour)}) {
        svg += fmt::format("<rect x=\"{:.1f}\" y=\"38\" width=\"12\" height=\"12\" fill=\"{}\"/>\n",
                           x, colour);
        svg += text_at(x + 17, 48, "start", name);
        x += 90;
    }
    return svg;
}

}  // namespace

std::string scatter_svg(const std::vector<GradientScatter>& all, const std::string& title) {
    const Decades decades(all);
    const double bottom = kTop + kRowHeight * static_cast<double>(all.size());
    std::string svg = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
        "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"sans-serif\" font-size=\"12\">\n"
        "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        kWidth, bottom + 30);
    svg += text_at(16, 22, "start", title) + legend() + axis(decades, bottom);
    double y = kTop;
    for (const GradientScatter& row : all) {
        const std::uint32_t draws = row.estimator.objective.samples;
        svg += text_at(
            kLeft - 10, y + 18, "end",
            fmt::format("{}, {} {}", row.estimator.name, draws, draws == 1 ? "draw" : "draws"));
        svg += bar(decades, y, row.encoder.variance, kEncoderColour);
        svg += bar(decades, y + kBarHeight + 2, row.decoder.variance, kDecoderColour);
        y += kRowHeight;
    }
    return svg + "</svg>\n";
}

}  // namespace vae
