// What the model hears in samples from standard input: mono, 32-bit floats between -1 and 1, at the model's rate.
// A recording that is longer than the model's window is heard in windows, and its answer is their mean.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

namespace {

constexpr double kThreshold = 0.5;  // least probability of a label that is named, where a clip may have several

int refuse(const std::string& reason) {
    std::cerr << "classify: " << reason << "\n";
    return 1;
}

// What the file says about itself; empty where it says nothing.
std::string property(const Ort::Session& session, const char* name) {
    Ort::AllocatorWithDefaultOptions allocator;
    auto value = session.GetModelMetadata().LookupCustomMetadataMapAllocated(name, allocator);
    return value ? std::string(value.get()) : std::string();
}

// Where the windows begin: half a window apart, and one that ends with the recording.
std::vector<size_t> windowStarts(size_t samples, size_t window) {
    const size_t hop = std::max<size_t>(window / 2, 1);
    std::vector<size_t> starts{0};
    while (starts.back() + window < samples) starts.push_back(std::min(starts.back() + hop, samples - window));
    return starts;
}

int classify(const char* modelPath, const char* labelsPath) {
    std::vector<std::string> labels;
    std::ifstream names(labelsPath);
    for (std::string line; std::getline(names, line);) labels.push_back(line);
    if (labels.empty()) return refuse(std::string(labelsPath) + ": cannot be read, or names no classes");

    std::vector<float> samples;
    for (float sample; std::cin.read(reinterpret_cast<char*>(&sample), sizeof sample);) samples.push_back(sample);
    if (std::cin.gcount()) return refuse("truncated, the input ends within a sample");
    if (samples.empty()) return refuse("the input holds no samples");
    if (!std::all_of(samples.begin(), samples.end(), [](float sample) { return std::isfinite(sample); }))
        return refuse("the input holds NaN or infinite samples");

    Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "classify");
    Ort::Session session(env, modelPath, Ort::SessionOptions{});
    const std::string window = property(session, "samples");
    if (window.empty()) return refuse(std::string(modelPath) + ": does not say how long its window is");
    const size_t windowSamples = std::stoul(window);
    const std::string shortest = property(session, "shortest");  // files of fastloaa 0.1.0 may not say
    if (!shortest.empty() && samples.size() < std::stoul(shortest))
        return refuse(std::to_string(samples.size()) + " samples at " + property(session, "sample_rate") +
                      " Hz; the model looks at " + shortest + " and more");

    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const char *inputs[] = {"waveform"}, *outputs[] = {"probabilities"};
    const auto starts = windowStarts(samples.size(), windowSamples);
    std::vector<double> mean(labels.size(), 0.0);
    for (size_t start : starts) {
        const size_t count = std::min(windowSamples, samples.size() - start);
        const std::array<int64_t, 2> shape{1, static_cast<int64_t>(count)};  // [batch, samples]
        auto input = Ort::Value::CreateTensor<float>(memory, samples.data() + start, count, shape.data(), shape.size());
        const auto answers = session.Run(Ort::RunOptions{nullptr}, inputs, &input, 1, outputs, 1);
        if (answers[0].GetTensorTypeAndShapeInfo().GetElementCount() != labels.size())
            return refuse(std::string(labelsPath) + ": does not name the model's classes");
        const float* probabilities = answers[0].GetTensorData<float>();
        for (size_t i = 0; i < labels.size(); ++i) mean[i] += probabilities[i] / static_cast<double>(starts.size());
    }

    if (!std::all_of(mean.begin(), mean.end(), [](double share) { return std::isfinite(share); }))
        return refuse("the model's answer is not a number; divide the samples by their full scale, to -1 to 1");

    const bool several = property(session, "multi_label") == "true";
    const double least = several ? kThreshold : *std::max_element(mean.begin(), mean.end());
    for (size_t i = 0; i < labels.size(); ++i)
        if (mean[i] >= least) std::cout << labels[i] << "\t" << mean[i] << "\n";
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return refuse("usage: classify model.onnx labels.txt < samples.f32");
    try {
        return classify(argv[1], argv[2]);
    } catch (const std::exception& error) {  // onnxruntime's too
        return refuse(error.what());
    }
}
