import Glibc
import Testing

@testable import WeightFile

/// 100,000 bytes whose digests below were computed with Python's zlib and hashlib.
private let sample = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 * 7 + $0 / 251) }

@Suite struct CRC32Tests {
  @Test func agreesWithZlib() {
    let cases: [(Int, UInt32)] = [
      (0, 0), (55, 0xd551_cbc6), (56, 0x3a6f_6a75), (63, 0xfd39_5ff8), (64, 0xd324_a7d4), (65, 0xc80b_1f57),
      (119, 0x638e_720e), (120, 0x3402_3dfe), (128, 0xc967_08ef), (100_000, 0x72af_c085),
    ]
    for (count, expected) in cases {
      #expect(sample[..<count].withUnsafeBytes { CRC32.of($0) } == expected, "first \(count) bytes")
    }
    #expect(Array("123456789".utf8).withUnsafeBytes { CRC32.of($0) } == 0xCBF4_3926)
  }

  @Test func doesNotDependOnHowTheBytesAreCut() {
    for piece in [1, 3, 7, 15, 16, 17, 1000] {
      var checksum = CRC32()
      for start in stride(from: 0, to: sample.count, by: piece) {
        sample[start..<min(start + piece, sample.count)].withUnsafeBytes { checksum.update($0) }
      }
      #expect(checksum.value == 0x72af_c085, "pieces of \(piece)")
    }
  }
}

@Suite struct SHA256Tests {
  @Test func agreesWithThePublishedVectors() {
    func digest(_ text: String) -> String {
      var hash = SHA256()
      hash.update(Array(text.utf8))
      return hash.hexDigest()
    }
    #expect(digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    #expect(digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    #expect(
      digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
        == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
  }

  @Test func padsEveryLengthOfTheLastBlock() {
    let cases = [
      (55, "576a1bf8d4478657"), (56, "9b20501dfd1d9916"), (63, "30b345906b493f06"), (64, "d8bc63b4fc1156e5"),
      (65, "1ee23b0fbcaecc1a"), (119, "7a6589821178918c"), (120, "655250427d56b1b0"), (128, "54c9eb041badfd70"),
    ]
    for (count, expected) in cases {
      var hash = SHA256()
      hash.update(Array(sample[..<count]))
      #expect(hash.hexDigest().hasPrefix(expected), "first \(count) bytes")
    }
  }

  @Test func doesNotDependOnHowTheBytesAreCut() {
    for piece in [1, 63, 64, 65, 1000, 100_000] {
      var hash = SHA256()
      for start in stride(from: 0, to: sample.count, by: piece) {
        sample[start..<min(start + piece, sample.count)].withUnsafeBytes { hash.update($0) }
      }
      #expect(
        hash.hexDigest() == "6b4e3f3d1dee15db72c519f5962bad253dfc7d4183d7e30e656259ce1eeab007", "pieces of \(piece)")
    }
  }

  @Test func hashesAFileAndNamesOneThatIsMissing() throws {
    let folder = TemporaryFolder()
    writeBytes(sample, to: folder.file("sample"))
    #expect(
      try SHA256.ofFile(folder.file("sample")) == "6b4e3f3d1dee15db72c519f5962bad253dfc7d4183d7e30e656259ce1eeab007")
    let missing = folder.file("missing")
    #expect(throws: WeightFileError.unreadable(file: missing, reason: "No such file or directory")) {
      try SHA256.ofFile(missing)
    }
    #expect(throws: WeightFileError.wrongKind(file: folder.path, kind: .folder)) { try SHA256.ofFile(folder.path) }
  }
}

@Suite struct ByteCountTests {
  @Test func readsLikeASize() {
    let cases = [
      (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.00 kB"), (1005, "1.01 kB"), (1004, "1.00 kB"),
      (9994, "9.99 kB"), (9995, "10.0 kB"), (12_345, "12.3 kB"), (99_950, "100 kB"), (123_456, "123 kB"),
      (999_499, "999 kB"), (999_500, "1.00 MB"), (1_130_000_000, "1.13 GB"), (-1500, "-1.50 kB"), (Int.max, "9.22 EB"),
      (Int.min, "-9.22 EB"),
    ]
    for (bytes, expected) in cases { #expect(ByteCount.describe(bytes) == expected) }
  }
}
