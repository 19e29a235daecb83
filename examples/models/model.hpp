// A model as a training program sees it: what it is made of, and what can be done with it, whatever its layers and wherever it runs.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tcnca::models {

enum class mixer_kind { convolution, ema, ema_by_fft };
enum class norm_kind { layer, scale, rms, batch };
enum class bias_kind { simple, rotary };
enum class attention_kind { softmax, laplace };
/// What comes out: the next token of every position; a class of every sequence; a class of every pair of neighbouring sequences.
enum class head_kind { next_token, sequence_class, pair_class };
/// How a token becomes a vector: a row of a table, or (grey levels 0 to 255) a multiple of one vector.
enum class embedding_kind { table, level };

struct model_config {
  std::string backend = "cpu";             ///< or "cuda"
  int threads = 1;                         ///< of the CPU
  long batch = 1, length = 1;              ///< the largest of any call
  head_kind head = head_kind::next_token;  ///< the next token: all is causal, else both directions are seen
  long vocabulary = 2, classes = 2;
  embedding_kind embedding = embedding_kind::table;

  long layers = 2, channels = 64, value_dim = 128, key_dim = 32, hidden = 128, chunk = 64;
  mixer_kind mixer = mixer_kind::convolution;
  std::string stack =
      "4x4";  ///< taps x depth of the convolutions, one of those that are compiled; the dilations are powers of the taps
  bool gates = true;  ///< false: the simplified layer, y = x + silu(attention Wh)
  norm_kind norm = norm_kind::layer;
  bool pre_norm = true;
  bias_kind bias = bias_kind::simple;
  attention_kind attention = attention_kind::softmax;
  double dropout = 0, attention_dropout = 0, hidden_dropout = 0;

  double beta1 = 0.9, beta2 = 0.98, decay = 0.01, clip = 1;  ///< of Adam
  unsigned long seed = 1;                                    ///< of parameters and dropout
};

/// Sequences side by side: tokens [sequences, length]. Targets are [sequences, length] (the next token; negative: not counted), [sequences] or
/// [sequences / 2] classes. `lengths`, where sequences are padded at the end, says how long each is.
struct examples {
  long sequences = 0, length = 0;
  int const* tokens = nullptr;
  int const* targets = nullptr;
  std::int64_t const* lengths = nullptr;
};

struct learned {
  double loss = 0;       ///< mean over the targets, in nats
  double grad_norm = 0;  ///< of all gradients together, before clipping
  double forward_seconds = 0, backward_seconds = 0, update_seconds = 0;
};

/// A part of what learning changes, as bytes.
struct saved_part {
  std::string name;
  std::vector<char> bytes;
};

class model {
 public:
  virtual ~model() = default;
  model(model const&) = delete;
  model& operator=(model const&) = delete;

  /// A step of learning; `step` counts from 1 and, with the seed, determines dropout. Nothing is learned from a loss or a gradient that is not finite.
  virtual learned learn(examples const&, long step, double rate) = 0;
  /// The mean loss, nothing learned, nothing dropped. `predictions`, one a target, are the most likely. Targets may be absent (then 0).
  virtual double evaluate(examples const&, int* predictions = nullptr) = 0;

  /// Next-token models only. `go_on` evaluates sequences that continue where those of the last call ended; `forget` lets them begin anew.
  virtual void forget() = 0;
  virtual double go_on(examples const&, int* predictions = nullptr) = 0;
  /// The same for generation: reads tokens [sequences, length], at a cost a token that does not depend on what came before, and gives the logits
  /// [sequences, vocabulary] that follow the last.
  virtual void read(examples const&, float* logits) = 0;

  /// After a loss that was not finite: the first part whose result was not, such as "layer 3 (attention)", or "the loss".
  virtual std::string not_finite() const = 0;

  /// Parameters, moments and counters: after `load` of what another model of the same configuration saved, steps give the same bits.
  virtual std::vector<saved_part> save() const = 0;
  /// Throws std::invalid_argument, changing nothing, if the parts are not those of such a model.
  virtual void load(std::vector<saved_part> const&) = 0;

  virtual std::size_t parameter_count() const = 0;
  virtual std::size_t memory_bytes() const = 0;  ///< all that it has allocated

 protected:
  model() = default;
};

/// Throws std::invalid_argument with a sentence where something asked for was not compiled or does not exist.
std::unique_ptr<model> make_model(model_config const&);

}  // namespace tcnca::models
