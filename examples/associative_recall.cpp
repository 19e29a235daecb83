// Associative recall, an evaluation of the TCNCA paper (arXiv 2312.05605): trains a small model on the CPU and tests it on sequences it has not seen.
#include <cmath>
#include <cstdio>
#include <numeric>

#include "models/model.hpp"
#include "recall/data.hpp"
#include "recall/options.hpp"
#include "recall/progress.hpp"

namespace {

namespace models = tcnca::models;
using models::model;

std::unique_ptr<model> make_model(recall::options const& o) {
  models::model_config config;
  config.threads = o.threads, config.batch = o.batch, config.length = o.length + 2;
  config.vocabulary = o.vocabulary, config.layers = o.layers, config.channels = o.channels, config.hidden = o.hidden;
  config.value_dim = o.value_dim, config.key_dim = o.key_dim, config.chunk = o.chunk;
  config.dropout = o.dropout, config.decay = o.decay, config.clip = o.clip, config.seed = o.seed;
  config.mixer = o.model == "mega" ? models::mixer_kind::average : models::mixer_kind::convolution;
  config.gates = o.model != "tcnca-simple";
  return models::make_model(config);
}

/// The share of sequences whose last token is predicted.
double accuracy(model& m, recall::examples const& e, long batch) {
  long right = 0;
  std::vector<int> predictions(std::size_t(batch * e.length));
  for (long first = 0; first < e.count(); first += batch) {
    long const sequences = std::min(batch, e.count() - first);
    m.evaluate({.sequences = sequences, .length = e.length, .tokens = e.tokens.data() + first * e.length}, predictions.data());
    for (long i = 1; i <= sequences; i++) right += predictions[std::size_t(i * e.length - 1)] == e.targets[std::size_t((first + i) * e.length - 1)];
  }
  return double(right) / double(e.count());
}

/// Sequences in an order that is drawn anew for each pass over them.
class batches {
 public:
  batches(recall::examples const& from, long batch, unsigned long seed) : from_(from), random_(seed), order_(std::size_t(from.count())) {
    std::iota(order_.begin(), order_.end(), 0L);
    tokens.resize(std::size_t(batch * from.length)), targets.resize(tokens.size());
  }
  std::vector<int> tokens, targets;

  void next() {
    std::size_t const l = std::size_t(from_.length);
    for (std::size_t i = 0; i < tokens.size(); i += l) {
      if (at_ == 0) std::shuffle(order_.begin(), order_.end(), random_);
      auto const which = order_[at_] * from_.length;
      std::copy_n(from_.tokens.begin() + which, l, tokens.begin() + long(i));
      std::copy_n(from_.targets.begin() + which, l, targets.begin() + long(i));
      at_ = (at_ + 1) % order_.size();
    }
  }

 private:
  recall::examples const& from_;
  std::mt19937_64 random_;
  std::vector<long> order_;
  std::size_t at_ = 0;
};

int train(recall::options const& o, std::FILE* out) {
  auto const training = recall::make_examples(o.vocabulary, o.length / 2, o.train, o.seed);
  auto const test = recall::make_examples(o.vocabulary, o.length / 2, o.test, o.seed + 0x9E3779B97F4A7C15u);
  auto const m = make_model(o);
  batches data(training, o.batch, o.seed);
  std::fprintf(out,
               "{\"model\": \"%s\", \"vocabulary\": %d, \"length\": %ld, \"layers\": %ld, \"channels\": %ld, \"value_dim\": %ld, \"key_dim\": %ld, "
               "\"hidden\": %ld, \"chunk\": %ld, \"batch\": %ld, \"steps\": %ld, \"rate\": %g, \"dropout\": %g, \"seed\": %lu, \"threads\": %d, "
               "\"parameters\": %zu}\n",
               o.model.c_str(), o.vocabulary, o.length, o.layers, o.channels, o.value_dim, o.key_dim, o.hidden, o.chunk, o.batch, o.steps, o.rate,
               o.dropout, o.seed, o.threads, m->parameter_count());

  recall::progress progress(o.steps, o.time_limit);
  double tested = 0, recent = 0;
  for (long step = 1; step <= o.steps; step++) {
    data.next();
    double const rising = double(step) / double(o.warmup + 1), falling = double(o.steps - step + 1) / double(std::max(1L, o.steps - o.warmup));
    models::learned const did = m->learn(
        {.sequences = o.batch, .length = training.length, .tokens = data.tokens.data(), .targets = data.targets.data()}, step,
        o.rate * std::min(rising, std::min(1.0, falling)));
    double const loss = did.loss, norm = did.grad_norm;
    if (!std::isfinite(loss) || !std::isfinite(norm)) {
      std::fprintf(stderr, "associative_recall: not a finite number at step %ld: %s; a lower --rate may help\n", step, m->not_finite().c_str());
      return 1;
    }
    recent = step == 1 ? loss : 0.9 * recent + 0.1 * loss;
    bool const late = progress.elapsed() > o.time_limit, tests = step % o.every == 0 || step == o.steps || late;
    if (tests) {
      tested = accuracy(*m, test, o.batch);
      std::fprintf(out, "{\"step\": %ld, \"loss\": %.6f, \"grad_norm\": %.4g, \"test_accuracy\": %.4f, \"seconds\": %.2f}\n", step, recent, norm, tested,
                   progress.elapsed());
      std::fflush(out);
    }
    progress.report(step, recent, tested, double(o.batch * (o.length + 2)), tests);
    if (late) break;
  }
  double const of_train = accuracy(*m, training, o.batch);
  std::fprintf(out, "{\"train_accuracy\": %.4f, \"test_accuracy\": %.4f, \"loss\": %.6f, \"seconds\": %.2f}\n", of_train, tested, recent,
               progress.elapsed());
  if (o.expect_loss > 0 && !(recent < o.expect_loss))
    return std::fprintf(stderr, "associative_recall: the loss ended at %g, expected below %g\n", recent, o.expect_loss), 1;
  if (tested < o.expect_accuracy)
    return std::fprintf(stderr, "associative_recall: the test accuracy ended at %g, expected at least %g\n", tested, o.expect_accuracy), 1;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  recall::options o;
  try {
    o = recall::parse(argc, argv);
  } catch (CLI::ParseError const& e) {
    return e.get_exit_code() == 0 ? 0 : 2;  // parse has said why
  }
  std::FILE* const out = o.output.empty() ? stdout : std::fopen(o.output.c_str(), "w");
  if (out == nullptr) return std::fprintf(stderr, "associative_recall: cannot write %s\n", o.output.c_str()), 2;
  int result = 2;
  try {
    result = train(o, out);
  } catch (std::exception const& e) {
    std::fprintf(stderr, "associative_recall: %s\n", e.what());
  }
  return out != stdout && std::fclose(out) != 0 ? 2 : result;
}
