// PyTorch as a contender of conv_vs_fft: torch.fft and a chain of dilated conv1d, in a process of Python with
// fft_pytorch.py, which keeps the tensors and times calls on request.
//
// The process allocates the tensors of each operation, as frameworks do; its malloc keeps freed memory, so that pages
// are not faulted in again at each call. CPU time is judged in the process, not here.
#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../support/buffer.hpp"
#include "../support/child_process.hpp"
#include "../support/problem.hpp"
#include "../support/process_clock.hpp"

namespace tcnca::bench {

class pytorch {
 public:
  /// Starts `python script device threads`. If PyTorch is not there, reason() says why.
  pytorch(std::string const& python, std::string const& script, std::string const& device, int threads) {
    try {
      process_ = std::make_shared<child_process>(
          std::vector<std::string>{python, "-W", "ignore", script, device, std::to_string(threads)},
          std::vector<std::string>{
              "MALLOC_MMAP_MAX_=0", "MALLOC_TRIM_THRESHOLD_=17179869184",
              std::string("THP_MEM_ALLOC_ENABLE=") + (buffer_pages() == page_choice::huge ? "1" : "0")});
      process_clock::add_child(process_->id());
      version_ = value(process_->answer(start_seconds));
      if (version_.rfind("ready ", 0) != 0) throw std::runtime_error("it wrote " + version_);
      version_.erase(0, 6);
    } catch (std::runtime_error const& e) { reason_ = e.what(); }
  }

  /// Why nothing can be compared; empty if it can.
  std::string const& reason() const { return reason_; }
  std::string const& version() const { return version_; }

  /// The sequences of the next contenders: x, grad_y [batch, channels, length] and kappa [channels, length].
  void load(problem const& p, std::vector<float> const& x, std::vector<float> const& grad_y,
            std::vector<float> const& kappa) {
    if (!reason_.empty()) return;
    count_ = x.size();
    send("data " + std::to_string(p.batch) + " " + std::to_string(p.channels) + " " + std::to_string(p.length),
         {&x, &grad_y, &kappa});
  }
  contender fft(pass direction, double limit_seconds) { return bind("fft", direction, limit_seconds); }
  /// weight [levels, taps, channels], tap 0 the newest sample.
  contender conv1d(conv_stack_shape const& s, std::vector<float> const& weight, pass direction, double limit_seconds) {
    if (reason_.empty())
      send("stack " + std::to_string(s.taps) + " " + std::to_string(s.dilation_base) + " " + std::to_string(s.levels()),
           {&weight});
    return bind("conv1d", direction, limit_seconds);
  }

 private:
  static constexpr double start_seconds = 120, file_seconds = 120;
  static constexpr double slice_seconds = 0.03;  ///< of the calls of one request

  /// The answer; throws the reason if it is "no".
  static std::string value(std::string const& answer) {
    if (answer.rfind("no ", 0) == 0) throw std::runtime_error(answer.substr(3));
    return answer;
  }
  /// A file that is removed with this object.
  struct temporary {
    std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("tcnca_pytorch_" + std::to_string(::getpid()));
    ~temporary() {
      std::error_code ignored;
      std::filesystem::remove(path, ignored);
    }
  };
  void send(std::string const& request, std::vector<std::vector<float> const*> const& values) {
    temporary const file;
    std::ofstream out(file.path, std::ios::binary);
    for (auto const* v : values)
      out.write(reinterpret_cast<char const*>(v->data()), static_cast<std::streamsize>(v->size() * sizeof(float)));
    out.close();
    if (!out) throw std::runtime_error(file.path.string() + " cannot be written");
    value(process_->ask(request + " " + file.path.string(), file_seconds));
  }
  contender bind(std::string const& name, pass direction, double limit_seconds) {
    if (!reason_.empty()) return {{}, {}, reason_};
    std::string const call = name + " " + to_string(direction);
    auto const process = process_;
    auto const seconds = [process, call](double budget, double limit) {
      return std::stod(value(process->ask("time " + call + " " + std::to_string(budget), limit)));
    };
    try {  // the first call also finds what memory does not hold
      auto const start = std::chrono::steady_clock::now();
      double const first = seconds(0, 10 * limit_seconds + 10);
      std::chrono::duration<double> const waited = std::chrono::steady_clock::now() - start;
      if ((std::isinf(first) ? waited.count() : first) > limit_seconds)
        return {{}, {}, "one call takes more seconds than the limit"};
    } catch (std::runtime_error const& e) { return {{}, {}, e.what()}; }
    return {[seconds, limit_seconds] {
              rest();
              return seconds(slice_seconds, 100 * limit_seconds + 10);
            },
            [process, call, count = count_] {
              temporary const file;
              value(process->ask("result " + call + " " + file.path.string(), file_seconds));
              std::vector<float> all(std::filesystem::file_size(file.path) / sizeof(float));
              std::ifstream(file.path, std::ios::binary)
                  .read(reinterpret_cast<char*>(all.data()), static_cast<std::streamsize>(all.size() * sizeof(float)));
              auto const middle = all.begin() + static_cast<std::ptrdiff_t>(std::min(count, all.size()));
              return outcome{{all.begin(), middle}, {middle, all.end()}};
            },
            {}};
  }
  /// Returns when the threads of this process no longer wait actively for work, which takes the other's processor.
  static void rest() {
    process_clock const clock;
    for (int i = 0; i < 50; i++) {
      double const cpu = clock.read().cpu;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (clock.read().cpu - cpu < 0.0002) break;
    }
  }

  std::shared_ptr<child_process> process_;
  std::string version_, reason_;
  std::size_t count_ = 0;
};

}  // namespace tcnca::bench
