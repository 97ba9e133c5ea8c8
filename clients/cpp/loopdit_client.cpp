// A client of policy-serve in C++17: libzmq, and the little of msgpack that docs/protocol.md uses.
//
//   g++ -std=c++17 -O2 loopdit_client.cpp -lzmq -o loopdit_client
//   ./loopdit_client tcp://127.0.0.1:5555
//
// main() opens a session, sends one observation of zeros as the server's spec wants it, and prints
// the chunk, an action a line. A robot keeps the Client and calls `infer` with its own frames.

#include <zmq.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace loopdit {

using Bytes = std::string;

// ---------------------------------------------------------------- msgpack, as far as it is used here

struct Value {  // of what a server sends
  enum Kind { Nil, Bool, Int, Float, Str, List, Map } kind = Nil;
  bool boolean = false;
  int64_t integer = 0;
  double real = 0;
  std::string text;
  std::vector<Value> list;
  std::vector<std::pair<std::string, Value>> map;

  const Value& at(size_t index) const {
    static const Value none;  // a field that an older server does not send
    return index < list.size() ? list[index] : none;
  }
  const Value& at(const std::string& key) const {
    static const Value none;
    for (const auto& entry : map)
      if (entry.first == key) return entry.second;
    return none;
  }
};

class Packer {
 public:
  Bytes bytes;
  void array(uint32_t n) { head(n, 0x90, 16, 0xdc); }
  void integer(uint64_t n) {
    if (n < 128) {
      bytes.push_back(static_cast<char>(n));
    } else {
      bytes.push_back(static_cast<char>(0xcf));
      big_endian(n, 8);
    }
  }
  void text(const std::string& s) {
    if (s.size() < 32) {
      bytes.push_back(static_cast<char>(0xa0 | s.size()));
    } else {
      bytes.push_back(static_cast<char>(0xda));
      big_endian(s.size(), 2);
    }
    bytes += s;
  }

 private:
  void head(uint32_t n, int small, uint32_t limit, int large) {
    if (n < limit) {
      bytes.push_back(static_cast<char>(small | n));
    } else {
      bytes.push_back(static_cast<char>(large));
      big_endian(n, 2);
    }
  }
  void big_endian(uint64_t n, int width) {
    for (int shift = 8 * (width - 1); shift >= 0; shift -= 8)
      bytes.push_back(static_cast<char>(n >> shift));
  }
};

class Unpacker {
 public:
  explicit Unpacker(const Bytes& bytes, size_t from) : bytes_(bytes), at_(from) {}

  Value value(int depth = 0) {
    if (depth > 32) throw std::runtime_error("the header is nested too deeply");
    const uint8_t head = byte();
    Value v;
    if (head < 0x80) return integer(head);
    if (head < 0x90) return map(head & 0x0f, depth);
    if (head < 0xa0) return list(head & 0x0f, depth);
    if (head < 0xc0) return text(head & 0x1f);
    if (head >= 0xe0) return integer(static_cast<int8_t>(head));
    switch (head) {
      case 0xc0: return v;
      case 0xc2: case 0xc3: v.kind = Value::Bool; v.boolean = head == 0xc3; return v;
      case 0xca: { const auto raw = static_cast<uint32_t>(number(4)); float f; std::memcpy(&f, &raw, 4); return real(f); }
      case 0xcb: { const uint64_t raw = number(8); double d; std::memcpy(&d, &raw, 8); return real(d); }
      case 0xcc: case 0xcd: case 0xce: case 0xcf: return integer(static_cast<int64_t>(number(1 << (head - 0xcc))));
      case 0xd0: return integer(static_cast<int8_t>(number(1)));
      case 0xd1: return integer(static_cast<int16_t>(number(2)));
      case 0xd2: return integer(static_cast<int32_t>(number(4)));
      case 0xd3: return integer(static_cast<int64_t>(number(8)));
      case 0xd9: case 0xda: case 0xdb: return text(number(1 << (head - 0xd9)));
      case 0xdc: case 0xdd: return list(number(head == 0xdc ? 2 : 4), depth);
      case 0xde: case 0xdf: return map(number(head == 0xde ? 2 : 4), depth);
      default: throw std::runtime_error("the header has a kind of value that the protocol has not");
    }
  }

 private:
  const Bytes& bytes_;
  size_t at_;

  uint8_t byte() {
    if (at_ >= bytes_.size()) throw std::runtime_error("the header ends early");
    return static_cast<uint8_t>(bytes_[at_++]);
  }
  uint64_t number(int width) {
    uint64_t n = 0;
    while (width--) n = n << 8 | byte();
    return n;
  }
  static Value integer(int64_t n) { Value v; v.kind = Value::Int; v.integer = n; return v; }
  static Value real(double d) { Value v; v.kind = Value::Float; v.real = d; return v; }
  Value text(uint64_t n) {
    if (n > bytes_.size() - at_) throw std::runtime_error("the header ends early");
    Value v;
    v.kind = Value::Str;
    v.text = bytes_.substr(at_, n);
    at_ += n;
    return v;
  }
  Value list(uint64_t n, int depth) {
    Value v;
    v.kind = Value::List;
    while (n--) v.list.push_back(value(depth + 1));
    return v;
  }
  Value map(uint64_t n, int depth) {
    Value v;
    v.kind = Value::Map;
    while (n--) {
      std::string key = value(depth + 1).text;
      v.map.emplace_back(std::move(key), value(depth + 1));
    }
    return v;
  }
};

// ------------------------------------------------------------------------------------- the client

struct Error : std::runtime_error {
  std::string code;
  Error(std::string c, const std::string& message) : std::runtime_error(c + ": " + message), code(std::move(c)) {}
};

struct Tensor {  // `data`: the raw elements, little-endian, C order
  std::string dtype;
  std::vector<uint64_t> shape;
  Bytes data;
};

struct Chunk {
  size_t horizon = 0, action_dim = 0;
  std::vector<float> actions;  // row by row
  int64_t loops = 0, steps = 0;
};

class Client {
 public:
  explicit Client(const std::string& endpoint, int timeout_ms = 5000)
      : context_(zmq_ctx_new(), zmq_ctx_term), socket_(zmq_socket(context_.get(), ZMQ_DEALER), zmq_close),
        timeout_ms_(timeout_ms) {
    const int zero = 0, one = 1;
    zmq_setsockopt(socket_.get(), ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(socket_.get(), ZMQ_IMMEDIATE, &one, sizeof one);
    zmq_setsockopt(socket_.get(), ZMQ_SNDTIMEO, &timeout_ms, sizeof timeout_ms);
    if (zmq_connect(socket_.get(), endpoint.c_str()) != 0) throw Error("TIMEOUT", zmq_strerror(zmq_errno()));
    std::random_device random;
    session_ = ((uint64_t{random()} << 32) ^ random()) & INT64_MAX;
    hello();
  }

  Value spec;  // what the policy is given and commands, as in docs/protocol.md
  std::string model_id;
  uint64_t horizon = 0;

  void hello() {
    Packer header;
    header.array(5);
    header.text("HELLO");
    header.integer(++seq_);
    header.integer(1);  // protocol_min
    header.integer(1);  // protocol_max
    header.integer(session_);
    const Value welcome = exchange(header.bytes, {}, "WELCOME").first;
    epoch_ = static_cast<uint64_t>(welcome.at(4).integer);
    model_id = welcome.at(5).text;
    horizon = static_cast<uint64_t>(welcome.at(6).integer);
    spec = welcome.at(11);
  }

  Chunk infer(const std::map<std::string, Tensor>& observation, const std::string& instruction = "",
              uint64_t loops = 0, uint64_t budget_us = 0, uint64_t seed = 0) {
    Packer header;
    header.array(11);
    header.text("OBS");
    header.integer(++seq_);
    header.integer(epoch_);
    header.integer(step_++);
    header.integer(static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()));
    header.integer(budget_us);
    header.integer(loops);
    header.integer(0);  // denoising steps: the server's choice
    header.integer(seed);
    header.text(instruction);
    header.array(static_cast<uint32_t>(observation.size()));
    std::vector<const Bytes*> frames;
    for (const auto& [name, tensor] : observation) {
      header.array(3);
      header.text(name);
      header.text(tensor.dtype);
      header.array(static_cast<uint32_t>(tensor.shape.size()));
      for (uint64_t side : tensor.shape) header.integer(side);
      frames.push_back(&tensor.data);
    }
    const auto [fields, tensors] = exchange(header.bytes, frames, "CHUNK");
    const Value& shape = fields.at(9).at(0).at(2);
    Chunk chunk;
    chunk.horizon = static_cast<size_t>(shape.at(0).integer);
    chunk.action_dim = static_cast<size_t>(shape.at(1).integer);
    chunk.loops = fields.at(5).integer;
    chunk.steps = fields.at(6).integer;
    if (tensors.size() != 1 || tensors[0].size() != chunk.horizon * chunk.action_dim * sizeof(float))
      throw Error("MALFORMED", "the server answered without a whole chunk");
    chunk.actions.resize(chunk.horizon * chunk.action_dim);
    std::memcpy(chunk.actions.data(), tensors[0].data(), tensors[0].size());  // float32 in raw units
    return chunk;
  }

  ~Client() {
    Packer header;
    header.array(2);
    header.text("BYE");
    header.integer(++seq_);
    const int linger_ms = 50;
    zmq_setsockopt(socket_.get(), ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    const Bytes bytes = "LDP1" + header.bytes;
    zmq_send(socket_.get(), bytes.data(), bytes.size(), ZMQ_DONTWAIT);
  }

 private:
  std::unique_ptr<void, int (*)(void*)> context_, socket_;
  int timeout_ms_;
  uint64_t session_ = 0, epoch_ = 0, seq_ = 0, step_ = 0;

  // The fields of the answer to the message just numbered, its kind first, and its tensor frames.
  std::pair<Value, std::vector<Bytes>> exchange(const Bytes& header, const std::vector<const Bytes*>& tensors,
                                                const std::string& wanted) {
    const Bytes first = "LDP1" + header;
    send(first, !tensors.empty());
    for (size_t i = 0; i < tensors.size(); ++i) send(*tensors[i], i + 1 < tensors.size());
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms_);
    for (;;) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      zmq_pollitem_t item{socket_.get(), 0, ZMQ_POLLIN, 0};
      if (zmq_poll(&item, 1, left.count() > 0 ? left.count() : 0) <= 0) throw Error("TIMEOUT", "no answer in time");
      std::vector<Bytes> frames = receive();
      if (frames[0].compare(0, 4, "LDP1") != 0) throw Error("VERSION", "the server speaks another protocol");
      Value fields = Unpacker(frames[0], 4).value();
      const std::string& kind = fields.at(0).text;
      const auto seq = static_cast<uint64_t>(fields.at(1).integer);
      if (kind == "BYE") throw Error("CLOSING", "the server left: " + fields.at(2).text);
      if (kind == "ERROR" && (seq == seq_ || seq == 0)) throw Error(fields.at(2).text, fields.at(4).text);
      if (kind == wanted && seq == seq_) {
        frames.erase(frames.begin());
        return {std::move(fields), std::move(frames)};
      }
      // Anything else answers a request that was given up.
    }
  }

  void send(const Bytes& frame, bool more) {
    if (zmq_send(socket_.get(), frame.data(), frame.size(), more ? ZMQ_SNDMORE : 0) < 0)
      throw Error("TIMEOUT", "the server takes no message: is policy-serve running there?");
  }

  std::vector<Bytes> receive() {
    std::vector<Bytes> frames;
    int more = 1;
    while (more) {
      zmq_msg_t message;
      zmq_msg_init(&message);
      if (zmq_msg_recv(&message, socket_.get(), 0) < 0) throw Error("TIMEOUT", zmq_strerror(zmq_errno()));
      frames.emplace_back(static_cast<const char*>(zmq_msg_data(&message)), zmq_msg_size(&message));
      more = zmq_msg_more(&message);
      zmq_msg_close(&message);
    }
    return frames;
  }
};

inline size_t item_size(const std::string& dtype) {
  if (dtype == "uint8" || dtype == "int8") return 1;
  if (dtype == "uint16" || dtype == "int16" || dtype == "float16") return 2;
  if (dtype == "uint32" || dtype == "int32" || dtype == "float32") return 4;
  return 8;
}

}  // namespace loopdit

#ifndef LOOPDIT_NO_MAIN
int main(int argc, char** argv) {
  const std::string endpoint = argc > 1 ? argv[1] : "tcp://127.0.0.1:5555";
  const std::string instruction = argc > 2 ? argv[2] : "";
  try {
    loopdit::Client client(endpoint);
    std::map<std::string, loopdit::Tensor> observation;
    for (const loopdit::Value& tensor : client.spec.at("observations").list) {
      loopdit::Tensor zeros;
      zeros.dtype = tensor.at("dtype").text;
      size_t elements = 1;
      for (const loopdit::Value& side : tensor.at("shape").list) {
        zeros.shape.push_back(static_cast<uint64_t>(side.integer));
        elements *= zeros.shape.back();
      }
      zeros.data.assign(elements * loopdit::item_size(zeros.dtype), '\0');
      observation[tensor.at("name").text] = zeros;
    }
    const loopdit::Chunk chunk = client.infer(observation, instruction);
    std::fprintf(stderr, "model %s, %zu actions of %zu, loops %lld, steps %lld\n", client.model_id.c_str(),
                 chunk.horizon, chunk.action_dim, static_cast<long long>(chunk.loops),
                 static_cast<long long>(chunk.steps));
    for (size_t row = 0; row < chunk.horizon; ++row)
      for (size_t i = 0; i < chunk.action_dim; ++i)
        std::printf("%.9g%c", static_cast<double>(chunk.actions[row * chunk.action_dim + i]),
                    i + 1 < chunk.action_dim ? ' ' : '\n');
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "loopdit_client: error: %s\n", error.what());
    return 1;
  }
}
#endif
