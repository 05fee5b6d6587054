#include "transport/proof.hpp"

#include "transport/byte_io.hpp"
#include "troupe/base/check.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

namespace troupe::net {

entropy system_entropy() {
  return [](std::span<std::byte> out) {
    const auto done =
        RAND_bytes(reinterpret_cast<unsigned char*>(out.data()), static_cast<int>(out.size()));
    TROUPE_CHECK(done == 1, "the system has no random bytes");
  };
}

std::uint64_t draw_word(const entropy& random) {
  std::uint64_t word = 0;
  while (word == 0)
    random(std::as_writable_bytes(std::span{&word, 1}));
  return word;
}

node_id draw_node_id(const entropy& random) { return {draw_word(random), draw_word(random)}; }

proof prove(std::span<const std::byte> secret, std::string_view label,
            std::span<const std::byte> dialler_hello, std::span<const std::byte> listener_hello) {
  std::vector<std::byte> text;
  byte_writer w{text};
  w.text(label);
  w.bytes(dialler_hello);
  w.bytes(listener_hello);
  proof out{};
  unsigned size = 0;
  const auto* done =
      HMAC(EVP_sha256(), secret.data() == nullptr ? "" : static_cast<const void*>(secret.data()),
           static_cast<int>(secret.size()), reinterpret_cast<const unsigned char*>(text.data()),
           text.size(), reinterpret_cast<unsigned char*>(out.data()), &size);
  TROUPE_CHECK(done != nullptr && size == out.size(), "HMAC-SHA-256 yields {} bytes", size);
  return out;
}

bool same_proof(const proof& a, std::span<const std::byte> b) noexcept {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

} // namespace troupe::net
