// protobuf.h -- writing protocol buffers: fields of a message, appended one after the other. A field is a
// varint tag (number * 8 + wire type) and its value: a varint (0), four bytes (5), or a length and bytes (2).
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace lanas {

class ProtoMessage {
 public:
  ProtoMessage& integer(int field, int64_t value) {
    tag(field, 0);
    varint(uint64_t(value));
    return *this;
  }
  ProtoMessage& number(int field, float value) {
    tag(field, 5);
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);  // little-endian, as this machine
    bytes_.append(bytes, sizeof value);
    return *this;
  }
  ProtoMessage& bytes(int field, std::string_view value) {
    tag(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  ProtoMessage& message(int field, const ProtoMessage& value) { return bytes(field, value.bytes_); }
  const std::string& str() const { return bytes_; }

 private:
  void tag(int field, int type) { varint(uint64_t(field) * 8 + uint64_t(type)); }
  void varint(uint64_t value) {
    for (; value >= 128; value >>= 7) bytes_ += char(value % 128 + 128);
    bytes_ += char(value);
  }

  std::string bytes_;
};

}  // namespace lanas
