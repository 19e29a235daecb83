// The interface of a model for training programs, independent of its layers and executor.
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
/// The output: the next token of each position, a class of each sequence, or a class of each pair of neighbouring
/// sequences.
enum class head_kind { next_token, sequence_class, pair_class };
/// The embedding of a token: a row of a table, or (grey levels 0 to 255) a multiple of one vector.
enum class embedding_kind { table, level };

struct model_config {
  std::string backend = "cpu";             ///< "cpu" or "cuda"
  int threads = 1;                         ///< CPU threads
  long batch = 1, length = 1;              ///< the largest of all calls
  head_kind head = head_kind::next_token;  ///< next_token: causal; otherwise bidirectional
  long vocabulary = 2, classes = 2;
  embedding_kind embedding = embedding_kind::table;

  long layers = 2, channels = 64, value_dim = 128, key_dim = 32, hidden = 128, chunk = 64;
  mixer_kind mixer = mixer_kind::convolution;
  std::string stack = "4x4";  ///< taps x depth, one of the compiled stacks
  bool gates = true;          ///< false: the simplified layer, y = x + silu(attention Wh)
  norm_kind norm = norm_kind::layer;
  bool pre_norm = true;
  bias_kind bias = bias_kind::simple;
  attention_kind attention = attention_kind::softmax;
  double dropout = 0, attention_dropout = 0, hidden_dropout = 0;

  double beta1 = 0.9, beta2 = 0.98, decay = 0.01, clip = 1;  ///< Adam's parameters
  unsigned long seed = 1;                                    ///< of initial values and dropout
};

/// A batch: tokens [sequences, length]. Targets are [sequences, length] (the next token; negative: ignored), or
/// [sequences] or [sequences / 2] classes. `lengths` (optional) are the valid positions of sequences padded at the end.
/// `offsets` (optional, models of the next token): sequences of different lengths are packed one after another. Tokens
/// and targets are [offsets[sequences]]; those of sequence s begin at offsets[s], and offsets[0] is 0. `length` is not
/// used. They have at most batch * length tokens of the configuration, in any number of sequences.
struct examples {
  long sequences = 0, length = 0;
  int const* tokens = nullptr;
  int const* targets = nullptr;
  std::int64_t const* lengths = nullptr;
  int const* offsets = nullptr;
};

/// A batch of pieces of sequences whose states lie in slots: tokens [sequences, length]; sequence s continues that in
/// slots[s] and its first token has the position positions[s]. At position 0 a sequence begins, and what the slot held
/// is ignored. The slots of a batch differ. With `offsets` pieces have different lengths, as packed examples.
struct slot_batch {
  long sequences = 0, length = 0;
  int const* tokens = nullptr;
  int const* slots = nullptr;
  std::int64_t const* positions = nullptr;
  int const* offsets = nullptr;
};

struct step_result {
  double loss = 0;       ///< mean over the targets, in nats
  double grad_norm = 0;  ///< norm of all gradients together, before clipping
  double forward_seconds = 0, backward_seconds = 0, update_seconds = 0;
};

/// A part of a model's state, as bytes.
struct saved_part {
  std::string name;
  std::vector<char> bytes;
};

class model {
 public:
  virtual ~model() = default;
  model(model const&) = delete;
  model& operator=(model const&) = delete;

  /// One training step. `step` counts from 1 and, together with the seed, selects the dropout masks. If the loss or a
  /// gradient is not finite, nothing changes.
  virtual step_result learn(examples const&, long step, double rate) = 0;
  /// The mean loss without training and without dropout. `predictions` (optional, one per target) receives the most
  /// likely token or class. Without targets, returns 0.
  virtual double evaluate(examples const&, int* predictions = nullptr) = 0;

  /// Next-token models only: `evaluate_continued` evaluates sequences that continue those of the last call;
  /// `reset_state` makes them begin anew.
  virtual void reset_state() = 0;
  virtual double evaluate_continued(examples const&, int* predictions = nullptr) = 0;
  /// The same for generation, at O(1) per token: reads tokens [sequences, length] and returns the logits [sequences,
  /// vocabulary] of the token that follows the last.
  virtual void read(examples const&, float* logits) = 0;

  /// Next-token models only: logits [sequences, length, vocabulary] of sequences that begin with the call.
  virtual void logits(examples const&, float* logits) = 0;
  /// The same for a pool of `slots` states, for sequences that begin and end independently of each other. Replaces the
  /// states of `evaluate_continued` and `read`, which replace the slots in turn.
  virtual void make_slots(long slots) = 0;
  /// Reads the pieces and returns the logits of their tokens, of which there are at most batch * length of the
  /// configuration; a piece has at most `length` tokens.
  virtual void read_slots(slot_batch const&, float* logits) = 0;
  /// Bytes of the states of one sequence.
  virtual std::size_t state_bytes() const = 0;

  /// After a non-finite loss: the first part with a non-finite result, such as "layer 3 (attention)", or "the loss".
  virtual std::string not_finite() const = 0;

  /// Parameters, moments and counters. A model of the same configuration that loads them continues with the same bits.
  virtual std::vector<saved_part> save() const = 0;
  /// Throws std::invalid_argument and changes nothing if the parts do not match the configuration.
  virtual void load(std::vector<saved_part> const&) = 0;

  virtual std::size_t parameter_count() const = 0;
  virtual std::size_t memory_bytes() const = 0;  ///< bytes allocated

 protected:
  model() = default;
};

/// Throws std::invalid_argument with a message if the configuration is invalid or was not compiled.
std::unique_ptr<model> make_model(model_config const&);

}  // namespace tcnca::models
