import WeightFile

/// The elements of a tensor as a function of its name. `hashed_weights.py` defines the same values, equal to the bit.
///
/// Element i: splitmix64's finaliser of seed + (i + 1) * golden gamma; its top 24 bits, less 2^23, times 2^-23 are exact
/// in f32 and lie in [-1, 1); times bound, plus mean, each rounded once.
struct HashedTensor {
  private let tensor: Layout.Tensor
  private let seed: UInt64
  private let count: Int

  /// Elements computed at a time, 256 KiB of f32.
  private static let chunk = 1 << 16

  /// `tensor` has passed the layout's checks.
  init(_ tensor: Layout.Tensor, file: String) {
    self.tensor = tensor
    seed = fnv1a64("\(file):\(tensor.tie ?? tensor.name)".utf8)
    count = tensor.count ?? 0
  }

  /// Hands out the little-endian elements, a chunk at a time, and returns their CRC-32.
  func stream(_ consume: ([UInt8]) throws(RandomCheckpointError) -> Void) throws(RandomCheckpointError) -> UInt32 {
    var checksum = CRC32()
    var start = 0
    while start < count {
      let end = min(count, start + Self.chunk)
      let bytes = tensor.isInteger ? integers(start..<end) : floats(start..<end)
      bytes.withUnsafeBytes { checksum.update($0) }
      try consume(bytes)
      start = end
    }
    return checksum.value
  }

  private func floats(_ range: Range<Int>) -> [UInt8] {
    let (mean, bound) = (Float(tensor.mean ?? 0), Float(tensor.bound ?? 0))
    var bytes: [UInt8] = []
    bytes.reserveCapacity(range.count * 4)
    for index in range {
      let product = bound * Self.unit(index, seed: seed)
      appendLittleEndian((mean + product).bitPattern, to: &bytes)
    }
    return bytes
  }

  private func integers(_ range: Range<Int>) -> [UInt8] {
    var bytes: [UInt8] = []
    for index in range { appendLittleEndian(UInt64(index), to: &bytes) }
    return bytes
  }

  static func unit(_ index: Int, seed: UInt64) -> Float {
    var z = seed &+ UInt64(index + 1) &* 0x9E37_79B9_7F4A_7C15
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    z ^= z >> 31
    return Float(Int(z >> 40) - (1 << 23)) * 0x1p-23
  }
}

func fnv1a64(_ bytes: some Sequence<UInt8>) -> UInt64 {
  bytes.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
}

func appendLittleEndian(_ value: some FixedWidthInteger, to bytes: inout [UInt8]) {
  withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
}
