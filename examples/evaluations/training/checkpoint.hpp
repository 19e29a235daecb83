// Checkpoints: everything that training needs to continue, in one file. A file is either read as a whole or refused
// with a message.
//
//   magic (8 bytes) | byte order mark, format version (4 each) | bytes of the file (8) | completed steps (8) |
//   configuration
//   | number of parts (8), each its name and its bytes | CRC-64 of all before (8)      a string is its length (8) and
//   its bytes
#pragma once
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "../../models/model.hpp"
#include "checksum.hpp"
#include "files.hpp"
#include "record.hpp"

namespace tcnca::training {

/// A checkpoint that cannot be used; the message says which file and why.
struct checkpoint_error : std::invalid_argument {
  checkpoint_error(std::filesystem::path const& path, std::string const& why)
      : std::invalid_argument("cannot use " + path.string() + ": " + why) {}
};

struct checkpoint {
  record configuration;                   ///< of the training; only the same configuration can continue
  long step = 0;                          ///< completed steps
  std::vector<models::saved_part> parts;  ///< of the model and of the training loop

  static constexpr char magic[8] = {'\x89', 'T',  'C',    'N',
                                    '\r',   '\n', '\x1a', '\n'};  // like PNG: a transfer in text mode is detected
  static constexpr std::uint32_t byte_order = 0x01020304, version = 1;
  static constexpr std::size_t head_bytes = 32, tail_bytes = 8;
};

namespace detail {

/// Writes and updates the checksum.
class checkpoint_writer {
 public:
  explicit checkpoint_writer(replacement& file) : file_(file) {}
  void bytes(void const* data, std::size_t count) { file_.write(data, count), sum_.add(data, count); }
  template <class T>
  void number(T value) {
    bytes(&value, sizeof value);
  }
  template <class String>
  void string(String const& s) {
    number(std::uint64_t(s.size())), bytes(s.data(), s.size());
  }
  std::uint64_t sum() const { return sum_.value(); }

 private:
  replacement& file_;
  checksum sum_;
};

/// Reads with bounds checks.
class checkpoint_reader {
 public:
  checkpoint_reader(std::vector<char> const& from, std::filesystem::path const& path) : from_(from), path_(path) {}
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value), sizeof value);
    return value;
  }
  template <class String>
  String string() {
    auto const count = number<std::uint64_t>();
    char const* const at = take(count);
    return String(at, at + count);
  }
  std::size_t left() const { return from_.size() - at_; }

 private:
  char const* take(std::uint64_t count) {
    if (count > left()) throw checkpoint_error(path_, "its parts do not fit its size");
    at_ += std::size_t(count);
    return from_.data() + at_ - count;
  }
  std::vector<char> const& from_;
  std::filesystem::path const& path_;
  std::size_t at_ = 0;
};

}  // namespace detail

/// Throws std::runtime_error if the file cannot be written; the old file then stays.
inline void write_checkpoint(std::filesystem::path const& path, checkpoint const& c) {
  std::string const configuration = c.configuration.line();
  std::uint64_t size = checkpoint::head_bytes + 8 + configuration.size() + 8 + checkpoint::tail_bytes;
  for (auto const& p : c.parts) size += 16 + p.name.size() + p.bytes.size();
  replacement file(path);
  detail::checkpoint_writer out(file);
  out.bytes(checkpoint::magic, sizeof checkpoint::magic);
  out.number(checkpoint::byte_order), out.number(checkpoint::version), out.number(size),
      out.number(std::int64_t(c.step));
  out.string(configuration);
  out.number(std::uint64_t(c.parts.size()));
  for (auto const& p : c.parts) out.string(p.name), out.string(p.bytes);
  out.number(out.sum());
  file.commit();
}

/// Throws checkpoint_error for anything but a complete checkpoint of this format.
inline checkpoint read_checkpoint(std::filesystem::path const& path) {
  auto const require = [&](bool holds, std::string const& why) {
    if (!holds) throw checkpoint_error(path, why);
  };
  std::error_code error;
  auto const there = std::filesystem::file_size(path, error);
  require(!error, error.message());
  std::vector<char> bytes(there);
  std::ifstream in(path, std::ios::binary);
  require(bool(in.read(bytes.data(), std::streamsize(bytes.size()))), "it cannot be read to its end");
  require(bytes.size() >= sizeof checkpoint::magic &&
              std::equal(checkpoint::magic, checkpoint::magic + sizeof checkpoint::magic, bytes.data()),
          "it is not a checkpoint of tcnca");
  require(bytes.size() >= checkpoint::head_bytes + checkpoint::tail_bytes, "it is cut off");
  detail::checkpoint_reader in_order(bytes, path);
  in_order.number<std::uint64_t>();  // magic
  require(in_order.number<std::uint32_t>() == checkpoint::byte_order,
          "it was written by a machine with another byte order, or is damaged");
  auto const version = in_order.number<std::uint32_t>();
  require(version == checkpoint::version, "its format has version " + std::to_string(version) +
                                              ", this program reads version " + std::to_string(checkpoint::version) +
                                              ": it was written by another version of it, or is damaged");
  auto const size = in_order.number<std::uint64_t>();
  require(size == bytes.size(),
          "it has " + std::to_string(bytes.size()) + " bytes where " + std::to_string(size) + " were written");
  checksum sum;
  sum.add(bytes.data(), bytes.size() - checkpoint::tail_bytes);
  std::uint64_t const computed = sum.value();
  require(std::memcmp(&computed, bytes.data() + bytes.size() - checkpoint::tail_bytes, sizeof computed) == 0,
          "it is damaged: its checksum is wrong");

  checkpoint c;
  c.step = long(in_order.number<std::int64_t>());
  try {
    c.configuration = record::parse(in_order.string<std::string>());
  } catch (checkpoint_error const&) { throw; } catch (std::invalid_argument const& e) {
    throw checkpoint_error(path, std::string("its configuration cannot be read: ") + e.what());
  }
  for (auto parts = in_order.number<std::uint64_t>(); parts > 0; parts--) {
    auto name = in_order.string<std::string>();
    c.parts.push_back({std::move(name), in_order.string<std::vector<char>>()});
  }
  require(in_order.left() == checkpoint::tail_bytes, "its parts do not fit its size");
  return c;
}

/// Throws checkpoint_error, naming the first difference, if the checkpoint has another configuration.
inline void require_same(checkpoint const& c, record const& configuration, std::filesystem::path const& path) {
  for (auto const* from : {&configuration, &c.configuration})
    for (auto const& entry : from->entries()) {
      std::string const &name = entry.first, had = c.configuration.text(name), has = configuration.text(name);
      if (had != has)
        throw checkpoint_error(path, "its " + name + " was " + (had.empty() ? "not given" : had) + ", now it is " +
                                         (has.empty() ? "not given" : has));
    }
}

}  // namespace tcnca::training
